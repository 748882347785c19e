from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from relay.backends.memory.source import MemorySource, forget, log
from relay.backends.source import Source, SourceFeatures
from tests.backends.source_harness import Sent, SourceHarness
from tests.backends.source_suite import SourceSuite
from tests.backends.source_suite_redelivery import Trouble, WhatComesAgain
from tests.backends.variants import all_of


class MemorySourceHarness(SourceHarness):
    def __init__(self, kind: type[Source] = MemorySource) -> None:
        self.kind = kind

    def config(self) -> dict[str, Any]:
        return {"name": "contract"}

    def send(self, messages: Sequence[Sent]) -> None:
        for message in messages:
            log("contract").send(message.body, message.key, message.headers)

    @contextmanager
    def stall(self) -> Iterator[None]:
        log("contract").running.clear()
        yield
        log("contract").running.set()

    def stop(self) -> None:
        log("contract").stop()

    def start(self) -> None:
        log("contract").start()


class MemoryQueue(MemorySource):
    """One of the other kind: without positions, so that acknowledgements alone decide."""

    features: ClassVar[SourceFeatures] = replace(MemorySource.features, has_positions=False)

    def open(self, positions: Mapping[str, str]) -> None:
        super().open({})


class TestMemory(SourceSuite):
    @pytest.fixture
    def harness(self) -> Iterator[SourceHarness]:
        yield MemorySourceHarness()
        forget("contract")


class TestMemoryWithoutPositions(
    SourceSuite,
    variant_of=TestMemory,
    because="acknowledgements alone decide what comes again",
    runs=[*all_of(WhatComesAgain), *all_of(Trouble)],
):
    @pytest.fixture
    def harness(self) -> Iterator[SourceHarness]:
        yield MemorySourceHarness(MemoryQueue)
        forget("contract")
