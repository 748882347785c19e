"""Every block of SQL and every piece of configuration on the pages of sinks and sources is accepted."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from relay.pipelines.config import parse
from tests.e2e.pages import ROOT, blocks
from tests.services.postgres import Database, PostgresServer

PAGES = sorted(f"{kind}/{path.stem}" for kind in ("sinks", "sources") for path in (ROOT / "docs" / kind).iterdir())
ROLES = ("tide_writer",)
"""Those that the pages expect to exist."""


@pytest.fixture(scope="module")
def database(_postgres18: PostgresServer) -> Iterator[Database]:
    _postgres18.start()
    made = _postgres18.create_database()
    yield made
    _postgres18.drop_database(made)


def configurations(database: Database, block: str) -> list[dict[str, Any]]:
    """Of the pipelines that a block makes. It runs as the schema's owner would run it, and leaves nothing behind."""
    with database.admin() as connection, connection.transaction(force_rollback=True):
        for role in ROLES:
            connection.execute(f"create role {role}")
        connection.execute("select tide.outbox_create_if_not_exists('orders')")
        connection.execute(block)
        return [row[0] for row in connection.execute("select config from tide.pipeline").fetchall()]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_sql_runs_and_every_pipeline_that_it_makes_is_valid(database: Database, page: str) -> None:
    first, *others = [configurations(database, block) for block in blocks(page)]
    kind = {"sinks": "sink_type", "sources": "source_type"}[page.partition("/")[0]]
    assert [config[kind] for config in first] == [page.partition("/")[2]], "the first block makes one pipeline"
    for config in [*first, *(config for found in others for config in found)]:
        parse(config)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "json")])
def test_every_piece_of_configuration_is_valid_in_the_first_pipeline(database: Database, page: str) -> None:
    [config] = configurations(database, blocks(page)[0])
    for piece in blocks(page, "json"):
        parse(config | json.loads(piece))


@pytest.mark.parametrize("page", PAGES)
def test_no_block_is_of_a_kind_that_nobody_runs(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    kinds = {line.removeprefix("```") for line in text.splitlines() if line.startswith("```")}
    assert kinds <= {"", "sql", "json", "sh", "python"}
