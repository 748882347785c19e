"""These tests run on a current server too."""

import pytest

from tests.services.redis import EMBEDDED, run_on_each


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    run_on_each(metafunc, EMBEDDED, *([] if "database" in metafunc.fixturenames else ["redis8"]))
