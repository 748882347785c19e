"""What hands off."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from relay.pipelines.jobs import parse_jobs
from workers.jobs.hand_off import HandOff


@pytest.fixture
def hand_off() -> Iterator[Callable[..., HandOff]]:
    """Makes one, for the queue receipts: `hand_off(celery_url=...)`."""
    with contextlib.ExitStack() as stack:

        def make(**config: Any) -> HandOff:
            made = HandOff(parse_jobs(config, resolved=True), "receipts")
            stack.callback(made.close)
            return made

        yield make
