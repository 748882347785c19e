"""These tests run on current servers too: on both where the answers of the server matter, on one otherwise."""

import pytest

from tests.services.redis import CURRENT, EMBEDDED, run_on_each

SUITES = ("test_sink", "test_source")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    current = list(CURRENT)
    if "redis_cluster" in metafunc.fixturenames:
        current = ["valkey"]
    elif metafunc.module.__name__.rpartition(".")[2] in SUITES:
        current = ["redis8"]
    run_on_each(metafunc, EMBEDDED, *current)
