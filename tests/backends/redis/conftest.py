"""These tests run on current servers too: the suites on one of them, since what can differ is in the other files."""

import pytest

from tests.services.redis import CURRENT, EMBEDDED, run_on_each

SUITES = ("test_sink", "test_source")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    current = list(CURRENT)
    if metafunc.module.__name__.rpartition(".")[2] in SUITES:
        current = ["valkey" if "redis_cluster" in metafunc.fixturenames else "redis8"]
    run_on_each(metafunc, EMBEDDED, *current)
