"""docs/reference/consumers.md tells the truth."""

import re

from tests.paths import ROOT

PAGE = (ROOT / "docs" / "reference" / "consumers.md").read_text()
HELPERS = {"outbox_create", "outbox_publish", "outbox_publish_many", "outbox_status", "outbox_drop"}


def test_every_block_runs_from_the_top_down(database):
    blocks = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 10
    with database.connect() as session:
        for block in blocks:
            session.execute(block)


def test_every_heading_is_the_signature(database):
    headings = re.findall(r"^### tide\.(\w+)\((.*?)\) →", PAGE, re.MULTILINE)
    with database.connect() as session:
        rows = session.execute("""
            select proname, array_to_string(array(
                     select name || coalesce(
                                ' => ' || lower(substring(defaults[n - pronargs + pronargdefaults] from '^[^:]*')), '')
                       from unnest(proargnames[1:pronargs]) with ordinality a (name, n) order by n), ', ')
              from (select *, string_to_array(pg_get_expr(proargdefaults, 0), ', ') as defaults from pg_proc) p
             where pronamespace = 'tide'::regnamespace""").fetchall()
    signatures = dict(rows)
    assert {name: signatures[name] for name, _ in headings} == dict(headings)
    assert set(re.findall(r"tide\.(\w+)", PAGE)) - HELPERS == {name for name, _ in headings}
