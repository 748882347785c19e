"""Every block of SQL and every piece of configuration on the pages of backends is accepted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.pipelines.config import parse
from tests.docs.backend_pages import ALL, FOLDER, Direction, page, system
from tests.docs.pages import blocks
from tests.services.postgres import Database, PostgresServer

SECTIONS = {(direction, name): f"backends/{system(direction, name)}#{direction}" for direction, name in ALL}
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


@pytest.mark.parametrize(("direction", "name"), SECTIONS)
def test_every_block_of_sql_runs_and_every_pipeline_that_it_makes_is_valid(
    database: Database, direction: Direction, name: str
) -> None:
    first, *others = [configurations(database, block) for block in blocks(SECTIONS[direction, name])]
    assert [config[f"{direction}_type"] for config in first] == [name], "the first block makes one pipeline"
    for config in [*first, *(config for found in others for config in found)]:
        parse(config)


@pytest.mark.parametrize("section", [section for section in SECTIONS.values() if blocks(section, "json")])
def test_every_piece_of_configuration_is_valid_in_the_first_pipeline(database: Database, section: str) -> None:
    [config] = configurations(database, blocks(section)[0])
    for piece in blocks(section, "json"):
        parse(config | json.loads(piece))


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.stem)
def test_every_block_is_of_a_kind_and_in_a_section_that_is_run(path: Path) -> None:
    text = page(path.stem)
    kinds = {line.removeprefix("```") for line in text.splitlines() if line.startswith("```")}
    assert kinds <= {"", "sql", "json", "sh", "python"}
    run = [section for section in SECTIONS.values() if section.startswith(f"backends/{path.stem}#")]
    for language in ("sql", "json"):
        assert text.count(f"```{language}\n") == sum(len(blocks(section, language)) for section in run)
