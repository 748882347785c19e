"""docs/sql.md and docs/security.md tell the truth."""

import re
from pathlib import Path

import psycopg
import pytest

DOCS = Path(__file__).parents[2] / "docs"
SQL = (DOCS / "sql.md").read_text()
SECURITY = (DOCS / "security.md").read_text()


def examples(text):
    """Every statement of every block of SQL."""
    blocks = re.findall(r"^```sql\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [statement.strip() for block in blocks for statement in block.split(";\n") if statement.strip()]


def test_every_example_works_from_the_top_down(database):
    with database.connect() as connection:
        for statement in examples(SQL):
            rows = connection.execute(statement).fetchall()
            assert rows or "if_exists" in statement, statement
    assert len(examples(SQL)) > 20


def test_every_function_is_in_the_reference_and_no_other(database):
    with database.connect() as connection:
        rows = connection.execute("select distinct proname from pg_proc where pronamespace = 'tide'::regnamespace")
        functions = {name for (name,) in rows}
    text = SQL.replace("tide.outbox where", "").replace("tide.outbox o", "").replace("tide.two_phase", "")
    assert set(re.findall(r"\btide\.(\w+)", text)) - {"dead_letter", "commands"} == functions


def test_every_heading_names_the_parameters_in_order(database):
    with database.connect() as connection:
        rows = connection.execute("""
            select proname, array(select name from unnest(proargnames[1:pronargs]) name), pronargdefaults
              from pg_proc where pronamespace = 'tide'::regnamespace""").fetchall()
    signatures = {(name, tuple(names), defaults) for name, names, defaults in rows}
    headings = re.findall(r"^### (.*)$", SQL, re.MULTILINE)
    calls = [call for heading in headings for call in re.findall(r"tide\.(\w+)\((.*?)\)", heading)]
    assert len(calls) > 12
    for name, parameters in calls:
        if parameters == "the same":
            continue
        words = [part.split() for part in parameters.split(",") if part.strip()]
        defaults = sum("default" in part or "=>" in part for part in words)
        assert (name, tuple(part[0] for part in words), defaults) in signatures, name


def test_every_default_in_the_headings_is_the_real_one(database):
    with database.connect() as connection:
        rows = connection.execute("""
            select proname, pg_get_expr(proargdefaults, 0) from pg_proc
             where pronamespace = 'tide'::regnamespace and proargdefaults is not null""").fetchall()
    real = dict(rows)
    assert real["outbox_create"] == real["outbox_create_if_not_exists"]
    numbers = re.findall(r"\d+", real["outbox_create"])
    heading = "retention_hours => {}, max_payload_bytes => {}, partition_size => {}".format(*numbers)
    assert f"### tide.outbox_create(name, {heading})" in SQL
    assert real["outbox_drop"] == "false"
    assert real["outbox_publish"] == "'{}'::jsonb, NULL::text"
    assert real["outbox_publish_many"] == "NULL::text[], NULL::jsonb[]"


def test_the_range_of_the_marks_is_the_real_one(database):
    with database.connect() as connection:
        row = connection.execute(
            "select tide.lock_class(0), tide.lock_class(999999), tide.lock_class(1000000)"
        ).fetchone()
    assert row == (1952670720, 1953670719, 1952670720)


def test_an_operator_configures_without_owning_the_schema(database):
    [create, *grants] = examples(SECURITY)
    with database.admin() as admin:
        admin.execute(create.replace("operator", "operator login password 'secret'"))
    try:
        with database.connect() as owner:
            for grant in grants:
                owner.execute(grant)
        url = database.server.process.url_of(database.name, "operator", "secret")
        with psycopg.connect(url, autocommit=True) as operator:
            operator.execute("select tide.outbox_create('orders')")
            operator.execute("select tide.relay_set_outbox('p', 'orders', '{\"sink_type\": \"memory\"}')")
            assert operator.execute("select name from tide.relay_list_configs()").fetchall() == [("p",)]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                operator.execute("select tide.outbox_drop('orders')")
    finally:
        with database.admin() as admin:
            admin.execute("drop owned by operator; drop role operator")
