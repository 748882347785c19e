"""These tests run on current servers too."""

import pytest

from tests.services.redis import CURRENT, EMBEDDED, run_on_each


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    run_on_each(metafunc, EMBEDDED, *CURRENT)
