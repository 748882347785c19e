"""The pages about SQL tell the truth: every function, its signature, its errors, and every example."""

import re
from functools import cache

import psycopg
import pytest

from tests.paths import ROOT

DOCS = ROOT / "docs"
PAGES = (
    *(
        f"reference/{name}"
        for name in (
            "sql",
            "consumers",
            "inboxes",
            "dead-letters",
            "retention",
            "table-outboxes",
            "jobs-sql",
            "stream-tables",
            "stream-outboxes",
            "stream-monitoring",
            "stream-snapshots",
            "permissions",
        )
    ),
    "migrating-from/pgtrickle-relay",
)


@cache
def page(name):
    return (DOCS / f"{name}.md").read_text()


def examples(text):
    """Every statement of every block of SQL."""
    blocks = re.findall(r"^```sql\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block.strip() for block in blocks if block.strip()]


def sections():
    """(the calls that a section is about, its text) of every page."""
    for name in PAGES:
        heads: list[str] = []
        for part in re.split(r"^(?=#{1,3} )", page(name), flags=re.MULTILINE):
            head, _, text = part.partition("\n")
            heads += (
                re.findall(r"(?:tide|pgtrickle)\.(\w+)\((.*?)\)(?= →|,|$)", head) if head.startswith("### ") else []
            )
            if text.strip():  # several headings can stand above one text
                yield heads, text
                heads = []


@cache
def documented():
    """Function -> the (parameters, text) of its sections."""
    found: dict[str, list[tuple[str, str]]] = {}
    for heads, text in sections():
        for name, parameters in heads:
            found.setdefault(name, []).append((parameters, text))
    return found


def signatures(connection, schema="tide"):
    """Every function that a role other than the owner may call: name, arguments, result."""
    return connection.execute(
        """select distinct f.proname, pg_get_function_arguments(f.oid), pg_get_function_result(f.oid),
                  f.proargnames[1:f.pronargs], f.pronargdefaults
             from pg_proc f join tide.permission p on p.object = f.proname and p.schema = %s
            where f.pronamespace = p.schema::text::regnamespace and p.object_type = 'function' and p.kind <> 'owner'
            order by 1, 2""",
        [schema],
    ).fetchall()


@pytest.mark.parametrize("name", PAGES)
def test_every_example_works_from_the_top_down(database, name):
    with database.connect() as connection:
        for block in examples(page(name)):
            connection.execute(block)
    assert examples(page(name))


def plain(text):
    """Arguments as people write them."""
    text = re.sub(r"(, )?OUT \w+ [a-z ]+(\[\])*", "", text)
    text = re.sub(r"::[a-z ]+(\[\])?", "", text).replace("DEFAULT", "default").replace("NULL", "null")
    return text.replace("integer", "int").replace("timestamp with time zone", "timestamptz")


def inner():
    """The functions that only our other functions call."""
    parts = [part for name in PAGES for part in page(name).split("\n## ") if part.startswith("Internal functions")]
    return {name for part in parts for name in re.findall(r"`tide\.(\w+)`", part)}


def test_the_list_of_functions_is_that_of_the_catalog(database):
    with database.connect() as connection:
        found = signatures(connection)
    real = {f"tide.{name}({plain(arguments)})" for name, arguments, *_ in found if name not in inner()}
    listed = re.findall(r"^\| `(tide\.\w+\(.*?\))` \|", page("reference/sql"), re.MULTILINE)
    assert set(listed) == real
    assert len(listed) == len(set(listed))


def test_every_function_has_a_section_with_its_parameters_an_example_and_its_errors(database):
    with database.connect() as connection:
        found = signatures(connection)
    lacking = []
    for name, _, _, names, defaults in found:
        texts = [text for parameters, text in documented().get(name, []) if fits(parameters, names or [], defaults)]
        if name in inner():
            continue
        if not texts:
            lacking.append(f"{name}: no heading with its parameters")
        elif not any(f"tide.{name}(" in block for text in texts for block in examples(text)):
            lacking.append(f"{name}: no example")
        elif not any("Errors:" in text or "No errors" in text for text in texts):
            lacking.append(f"{name}: nothing on errors")
    assert not lacking, "\n".join(lacking)


def fits(parameters, names, defaults):
    if parameters == "the same":
        return True
    words = [part.split() for part in parameters.split(",") if part.strip()]
    given = sum("default" in word or "=>" in word for word in words)
    return ([word[0] for word in words], given) == (list(names), defaults)


def test_every_heading_is_of_a_function_that_is_there(database):
    with database.connect() as connection:
        real = {
            name
            for (name,) in connection.execute("select proname from pg_proc where pronamespace = 'tide'::regnamespace")
        }
    assert set(documented()) <= real


def test_every_default_in_the_headings_is_the_real_one(database):
    with database.connect() as connection:
        real = {(name, tuple(names or [])): plain(arguments) for name, arguments, _, names, _ in signatures(connection)}
    wrong = []
    for name, texts in documented().items():
        for parameters, _ in texts:
            names = tuple(part.split()[0] for part in parameters.split(",") if part.strip())
            arguments = real.get((name, names), "")
            for parameter, default in re.findall(r"(\w+)(?: [a-z0-9\[\]]+)? (?:=>|default) ([^,]+)", parameters):
                if not re.search(
                    rf"\b{parameter} [a-z0-9\[\] ]+ DEFAULT {re.escape(default)}(?:,|$)", arguments, re.IGNORECASE
                ):
                    wrong.append(f"{name}: {parameter} => {default}, but: {arguments}")
    assert wrong == []


def test_the_calls_of_earlier_systems_are_listed_with_their_signatures(database):
    with database.connect() as connection:
        real = {plain(f"{name}({arguments})") for name, arguments, *_ in signatures(connection, "pgtrickle")}
    listed = set(re.findall(r"`(\w+\([^`]*\)) →", page("migrating-from/pgtrickle-relay")))
    parts = {"outbox_of(name text)", "relay_box(name text, config jsonb, keys text[])", "relay_changed(name text)"}
    parts |= {"stream_options(cdc_mode text)", "relay_outbox(name text, config jsonb)"}
    assert real - parts == listed


def test_the_range_of_the_marks_is_the_real_one(database):
    with database.connect() as connection:
        row = connection.execute(
            "select tide.lock_class(0), tide.lock_class(999999), tide.lock_class(1000000)"
        ).fetchone()
    assert row == (1952670720, 1953670719, 1952670720)


def test_refusals_carry_the_codes_that_the_page_lists(database):
    listed = set(re.findall(r"`([0-9A-Z]{5})`", page("reference/sql")))
    with database.connect() as connection:
        bodies = connection.execute("select prosrc from pg_proc where pronamespace = 'tide'::regnamespace").fetchall()
    raised = {code for (body,) in bodies for code in re.findall(r"errcode = '(\w+)'", body)}
    assert len(raised) > 10
    assert {sqlstate(code) for code in raised} <= listed


def sqlstate(condition):
    """`undefined_object` -> 42704."""
    name = "".join(part.capitalize() for part in condition.split("_"))
    return str(getattr(psycopg.errors, name).sqlstate)


def test_psycopg_knows_what_the_page_calls_the_errors():
    codes = re.findall(r"`([0-9A-Z]{5})`", page("reference/sql").partition("\n## ")[0])
    assert len(codes) > 20
    for code in codes:
        assert psycopg.errors.lookup(code)
