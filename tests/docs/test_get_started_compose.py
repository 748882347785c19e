"""Getting started with Docker Compose: no container runs here, so its SQL runs on servers of the test's own, and its
commands are put to the real Docker Compose, and to the file, as far as they go without an engine."""

import itertools
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import blocks, substituted
from tests.docs.shell import commands, is_a_verb
from tests.e2e.drains import Drains, draining
from tests.packaging.test_compose import compose
from tests.services.nats import NatsServer
from tests.services.postgres import Database

ROOT = Path(__file__).parents[2]
PAGE = "get-started/compose"
NATS = "nats://nats:4222"


@pytest.fixture
def drains(database: Database) -> Iterator[Drains]:
    with draining(database) as made:
        yield made


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    return found


def composed() -> list[list[str]]:
    """What follows `docker compose` in each command of the page."""
    return [words[2:] for words in commands(PAGE) if words[:2] == ["docker", "compose"]]


def test_a_message_goes_out_and_comes_back(drains: Drains, own_nats: Callable[[], NatsServer]) -> None:
    put = {NATS: own_nats().url}
    forward, publish, reverse, look = blocks(PAGE)
    drains.db.execute(substituted(forward, put))
    drains.db.execute(publish)
    drains.until_idle("orders-to-nats")
    drains.db.execute(substituted(reverse, put))
    drains.query("update tide.pipeline set config = config || '{\"slice_ms\": 100}'")  # else the test waits for it
    drains.until("nats-to-orders", lambda: drains.query("select 1 from tide.orders_in"))
    assert drains.query(look) == [("orders:1", {"order": 42, "total": 99.5})]


def test_the_commands_are_those_of_docker_compose() -> None:
    assert composed()
    for words in composed():
        command = [*compose(), "--file", str(ROOT / "compose.yaml"), *words]
        done = subprocess.run(
            command, env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "DOCKER_HOST": "unix:///nonexistent.sock"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "nonexistent.sock" in done.stderr, f"{shlex.join(words)}: only the engine is missing: {done.stderr}"


def test_they_name_services_and_profiles_that_there_are(services: dict[str, Any]) -> None:
    for words in composed():
        for option, value in itertools.pairwise(words):
            if option == "--profile":
                assert any(value in service.get("profiles", []) for service in services.values()), value
            if option in {"exec", "--scale"}:
                assert value.partition("=")[0] in services


def test_what_runs_in_a_container_is_a_verb_of_ours_or_psql(services: dict[str, Any]) -> None:
    roles = (ROOT / "deploy/compose/postgres-roles.sh").read_text("utf-8")
    for words in composed():
        if "exec" not in words:
            continue
        _, service, program, *arguments = words[words.index("exec") :]
        if program == "psql":
            assert (service, arguments) == ("postgres", ["--username=app", "app"])
            assert re.search(r"create role app login .*\ncreate database app owner app", roles)
        else:
            is_a_verb([program, *arguments])


def test_the_address_of_nats_is_that_of_its_service(services: dict[str, Any]) -> None:
    assert any(NATS in block for block in blocks(PAGE))
    assert "nats" in services["nats"]["profiles"]


def test_every_profile_is_told_of(services: dict[str, Any]) -> None:
    text = (ROOT / "docs" / f"{PAGE}.md").read_text("utf-8")
    profiles = {name for service in services.values() for name in service.get("profiles", [])}
    assert {name for name in profiles if f"`{name}`" not in text and f"--profile {name}" not in text} == set()
