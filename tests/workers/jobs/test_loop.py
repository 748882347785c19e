"""The order of the steps of a trip, with a store that answers at once."""

import asyncio
from typing import Any

import pytest

from relay.jobs import job
from relay.jobs.registry import handlers, own_handlers
from relay.settings import Settings
from tests.workers.jobs.test_runner import claimed
from workers.jobs.loop import Loop
from workers.jobs.measures import Measures
from workers.jobs.queues import Queue
from workers.jobs.store import Seen, Trip, Visit


def test_handlers_begin_before_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    async def answer(*_: Any) -> Trip:
        return Trip([Seen([claimed(1, "first"), claimed(2, "first")], None)])

    async def trip() -> None:
        loop = Loop(Settings(postgres_url="postgresql://nowhere"), handlers(), [])
        loop._worker = 1
        monkeypatch.setattr(loop._store, "trip", answer)
        await loop._trip([Visit(Queue("q", 1, 1, "jobs.q"), 2, looks=False)])
        await asyncio.sleep(0)
        loop.runner.close()

    monkeypatch.setattr(Measures, "trip", lambda *_: steps.append("counted"))
    with own_handlers():

        @job
        async def first() -> None:
            steps.append("begun")

        asyncio.run(trip())
    assert steps == ["begun", "begun", "counted"]
