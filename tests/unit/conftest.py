"""Tests here need no other process."""

from typing import Never

import pytest


@pytest.fixture(scope="session")
def run_dir() -> Never:
    """In the place of the folder of the services, without which none of them starts."""
    pytest.fail("tests/unit starts no servers: put the test into tests/contract, tests/processes or tests/sql")
