"""docs/reference/inboxes.md: every example runs, from the top down, and every function of inboxes is there."""

import re

from tests.paths import ROOT

PAGE = (ROOT / "docs" / "reference" / "inboxes.md").read_text()


def statements(text):
    blocks = re.findall(r"^```sql\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [statement.strip() for block in blocks for statement in block.split(";\n") if statement.strip()]


def test_every_example_works_from_the_top_down(database):
    with database.connect() as connection:
        for statement in statements(PAGE):
            cursor = connection.execute(statement)
            if cursor.description and "if_exists" not in statement:
                assert cursor.fetchall(), statement
    assert len(statements(PAGE)) > 30


def test_every_function_of_inboxes_is_on_the_page_with_its_arguments(database):
    with database.connect() as connection:
        rows = connection.execute("""
            select proname, array(select name from unnest(proargnames[1:pronargs]) name), pronargdefaults
              from pg_proc where pronamespace = 'tide'::regnamespace and proname ~ 'inbox'
               and proname !~ '^(grant_|relay_|inbox_grant|inbox_revoke)'
               and exists (select from tide.permission p where p.object = proname and p.kind <> 'owner')""").fetchall()
    told = set(re.findall(r"\btide\.(\w+)", PAGE))
    assert {name for name, _, _ in rows} <= told
    signatures = {(name, tuple(names), defaults) for name, names, defaults in rows}
    headings = re.findall(r"^### tide\.(\w+)\((.*?)\) →", PAGE, re.MULTILINE)
    assert len(headings) > 18
    for name, parameters in headings:
        words = [part.split() for part in parameters.split(",") if part.strip()]
        defaults = sum("default" in part or "=>" in part for part in words)
        assert (name, tuple(part[0] for part in words), defaults) in signatures, name
