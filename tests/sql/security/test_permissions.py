"""docs/reference/permissions.md, the rows of tide.permission and PostgreSQL's catalogs say the same."""

import re

import psycopg
import pytest

from relay.sql import query
from tests.paths import ROOT
from tests.sql.security.logins import logins

pytestmark = pytest.mark.each_postgres

PAGE = (ROOT / "docs" / "reference" / "permissions.md").read_text()
GROUPS = (
    "admin",
    "operator",
    "reader",
    "publisher",
    "consumer",
    "group_consumer",
    "inbox_worker",
    "relay",
    "api",
    "inbox_writer",
    "job_publisher",
    "job_worker",
    "job_operator",
    "streams",
)

# What the schemas of tide-relay hold, but not what each outbox and each inbox has.
OBJECTS = """
    select distinct 'function', n.nspname::text, p.proname::text
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname in ('tide', 'pgtrickle')
    union all
    select case c.relkind when 'S' then 'sequence' else 'table' end, n.nspname::text, c.relname::text
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('tide', 'pgtrickle') and c.relkind in ('r', 'p', 'v', 'm', 'S')
       and not exists (select from pg_depend d
                        where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.objsubid = 0
                          and d.deptype = 'i')
"""

# Every right that a role was given itself: (type, schema, object, privileges).
HELD = """
    select 'function', n.nspname::text, p.proname::text, lower(a.privilege_type)
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace, aclexplode(p.proacl) a
     where a.grantee = %(role)s::regrole
    union
    select case c.relkind when 'S' then 'sequence' else 'table' end, n.nspname::text, c.relname::text,
           lower(a.privilege_type)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) a
     where a.grantee = %(role)s::regrole
    union
    select 'table', n.nspname::text, c.relname::text, lower(a.privilege_type) || ' ' || t.attname
      from pg_attribute t join pg_class c on c.oid = t.attrelid join pg_namespace n on n.oid = c.relnamespace,
           aclexplode(t.attacl) a
     where a.grantee = %(role)s::regrole
"""


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


@pytest.fixture
def login(database):
    with logins(database) as make:
        yield make


def rows(db):
    return db.execute(
        "select kind, object_type, schema::text, object::text, privileges from tide.permission"
    ).fetchall()


def single(privileges):
    """`select, update (a, b)` as {select, update a, update b}."""
    found = set()
    for verb, columns in re.findall(r"(\w+)(?: \(([^)]*)\))?", privileges):
        found |= {f"{verb} {column.strip()}" for column in columns.split(",")} if columns else {verb}
    return found


def test_for_every_object_it_is_decided_who_has_it(db):
    objects = set(db.execute(OBJECTS).fetchall())
    decided = {(object_type, schema, name) for _, object_type, schema, name, _ in rows(db)}
    assert sorted(objects - decided) == []
    assert sorted(decided - objects) == []


def test_what_is_the_owners_is_nobody_elses(db):
    owners = {row[1:4] for row in rows(db) if row[0] == "owner"}
    assert sorted(owners & {row[1:4] for row in rows(db) if row[0] != "owner"}) == []


@pytest.mark.parametrize("kind", GROUPS)
def test_a_role_gets_the_rights_of_its_kind_and_no_others(db, login, kind):
    name, _ = login()
    db.execute("select tide.grant_rights(%s, %s)", [kind, name])
    held = {(*row[:3], right) for row in db.execute(HELD, {"role": name}).fetchall() for right in [row[3]]}
    [(kinds,)] = db.execute("select tide.kinds_of(%s)", [kind]).fetchall()
    meant = {(*row[1:4], right) for row in rows(db) if row[0] in kinds for right in single(row[4])}
    assert sorted(held - meant) == []
    assert sorted(meant - held) == []
    usage = db.execute(
        """select n.nspname::text from pg_namespace n, aclexplode(n.nspacl) a
            where a.grantee = %s::regrole and a.privilege_type = 'USAGE'""",
        [name],
    ).fetchall()
    views = {"tide_outbox"} if "publisher" in kinds else set()
    assert {schema for (schema,) in usage} == {row[2] for row in rows(db) if row[0] in kinds} | views


def listing(db):
    """The tables of the page, as they must be."""
    holders: dict[tuple[str, str], list[str]] = {}
    for kind, object_type, schema, name, privileges in rows(db):
        who = "owner only" if kind == "owner" else kind
        shown = name if schema == "tide" else f"{schema}.{name}"
        how = who if object_type == "function" or kind == "owner" else f"{who}: {privileges}"
        holders.setdefault((object_type, shown), []).append(how)
    lines: dict[str, list[str]] = {}
    for (object_type, shown), who in sorted(holders.items()):
        lines.setdefault(object_type, []).append(f"| `{shown}` | {'; '.join(sorted(who))} |")
    return {object_type: "\n".join(found) for object_type, found in lines.items()}


@pytest.mark.parametrize("object_type", ["function", "table", "sequence"])
def test_the_page_lists_every_object_and_who_has_it(db, object_type):
    """To update the page, take what this compares with."""
    meant = listing(db)[object_type]
    header = re.escape(f"| {object_type} | who |\n|---|---|\n")
    found = re.search(f"{header}(.*?)\n\n", PAGE + "\n", re.DOTALL)
    assert found is not None
    assert found[1].splitlines() == meant.splitlines()


def test_the_page_says_what_a_kind_is_beside_itself(db):
    for kind in GROUPS:
        [(kinds,)] = db.execute("select tide.kinds_of(%s)", [kind]).fetchall()
        others = ", ".join(f"`{other}`" for other in kinds if other != kind)
        told = re.search(rf"^\| `{kind}` \|.*\|([^|]*)\|$", PAGE, re.MULTILINE)
        assert told is not None, kind
        assert told[1].strip() == others, kind


def test_public_has_nothing(db):
    """Types of tables and their arrays cannot be granted apart; they give nothing."""
    granted = db.execute("""
        select 'function', p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         where n.nspname in ('tide', 'pgtrickle') and has_function_privilege('public', p.oid, 'execute')
         union all
        select 'relation', c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace,
               aclexplode(c.relacl) a where n.nspname in ('tide', 'pgtrickle') and a.grantee = 0
         union all
        select 'column', t.attname::text from pg_attribute t join pg_class c on c.oid = t.attrelid
          join pg_namespace n on n.oid = c.relnamespace, aclexplode(t.attacl) a
         where n.nspname in ('tide', 'pgtrickle') and a.grantee = 0
         union all
        select 'schema', n.nspname::text from pg_namespace n
         where n.nspname in ('tide', 'pgtrickle') and (has_schema_privilege('public', n.oid, 'usage')
                                                       or has_schema_privilege('public', n.oid, 'create'))
         union all
        select 'type', t.typname::text from pg_type t join pg_namespace n on n.oid = t.typnamespace
         where n.nspname in ('tide', 'pgtrickle') and t.typtype in ('d', 'e', 'r')
           and has_type_privilege('public', t.oid, 'usage')""").fetchall()
    assert granted == []


def test_what_relay_doctor_looks_for_is_what_a_relay_is_given(db, login):
    """Each right of the kind `relay`, taken from a role, is named."""
    name, url = login("grant_relay")
    kinds = ("relay", "api", "inbox_writer", "job_worker")
    with psycopg.connect(url, autocommit=True) as relay:
        assert relay.execute(query("doctor_rights")).fetchall() == []
        for kind, object_type, schema, thing, privileges in rows(db):
            if kind not in kinds:
                continue
            for right in single(privileges):
                verb, _, column = right.partition(" ")
                revoke_and_look(
                    db, relay, name, object_type, f"{schema}.{thing}", f"{verb} ({column})" if column else verb
                )


def revoke_and_look(db, relay, role, object_type, thing, right):
    names = [thing]
    if object_type == "function":
        found = db.execute(
            "select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname || '.' || p.proname = %s",
            [thing],
        )
        names = [name for (name,) in found]
    for name in names:
        db.execute(f"revoke {right} on {object_type} {name} from {role}")
        lacking = [row[0] for row in relay.execute(query("doctor_rights"))]
        assert any(name in text and text.startswith(right) for text in lacking), (right, name)
        db.execute(f"grant {right} on {object_type} {name} to {role}")


@pytest.mark.parametrize("name", ["security", "operations/upgrades", "reference/permissions"])
def test_the_examples_of_the_pages_work_from_the_top_down(database, db, name):
    text = (ROOT / "docs" / f"{name}.md").read_text()
    blocks = re.findall(r"^```sql\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    statements = [statement for block in blocks for statement in block.split(";\n") if statement.strip()]
    roles = re.findall(r"create role (\w+)", "\n".join(statements))
    try:
        with database.admin() as admin:
            for statement in statements:
                (admin if statement.startswith("create role") else db).execute(statement)
    finally:
        with database.admin() as admin:
            for role in roles:
                admin.execute(f"drop owned by {role}; drop role {role}")
