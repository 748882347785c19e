"""Functions that run with their owner's rights believe nothing that their caller has set up."""

import pytest

from tests.sql.support import make_outbox

pytestmark = pytest.mark.each_postgres

PINNED = "search_path=pg_catalog, pg_temp"


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection)
        yield connection


def test_every_function_with_its_owners_rights_has_a_pinned_search_path(db):
    rows = db.execute("""
        select oid::regprocedure::text, proconfig from pg_proc
         where pronamespace in ('tide'::regnamespace, 'pgtrickle'::regnamespace) and prosecdef""").fetchall()
    assert len(rows) > 20
    assert [name for name, settings in rows if PINNED not in (settings or [])] == []


def test_every_other_function_is_pinned_too_or_bound_when_it_was_made(db):
    """The body of an SQL function in the standard's form is parsed once: names in it cannot change their meaning."""
    rows = db.execute("""
        select proname, proconfig, prosqlbody is not null from pg_proc
         where pronamespace = 'tide'::regnamespace and not prosecdef""").fetchall()
    assert [name for name, settings, bound in rows if not bound and PINNED not in (settings or [])] == []


def test_nobody_but_the_owner_may_call_any_function_or_use_any_table(db):
    functions = db.execute("""
        select oid::regprocedure::text from pg_proc
         where pronamespace = 'tide'::regnamespace and has_function_privilege('public', oid, 'execute')""").fetchall()
    tables = db.execute("""
        select oid::regclass::text from pg_class
         where relnamespace = 'tide'::regnamespace and relkind in ('r', 'p', 'S')
           and (relacl is not null and exists (select from aclexplode(relacl) a where a.grantee = 0))""").fetchall()
    usage = db.execute("select has_schema_privilege('public', 'tide', 'usage')").fetchone()
    assert (functions, tables, usage) == ([], [], (False,))
