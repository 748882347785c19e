"""No test declares handlers or middleware for the next one."""

from collections.abc import Iterator

import pytest

from relay.jobs import middleware
from relay.jobs.testing import own_handlers


@pytest.fixture(autouse=True)
def _own_handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(middleware, "_scopes", [])
    with own_handlers():
        yield
