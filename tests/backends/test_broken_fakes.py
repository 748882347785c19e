"""The suite bites: each of these sinks breaks the contract in one way, and the scenario named for it fails."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from relay.backends.memory.sink import MemorySink, forget, store
from relay.backends.sink import Features, Sink
from relay.errors import NotConnected
from relay.models import Failure, Record
from tests.backends.harness import Harness, Missing
from tests.backends.memory.test_sink import MemoryHarness
from tests.backends.steps import Limits
from tests.backends.suite import SinkSuite

# What hangs, hangs on this, so that a test can let its threads go.
released = threading.Event()


class LosesOne(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        return super().publish(records[:-1] if len(records) > 500 else records)


class DeliversNothingButSaysSo(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        super().publish([])
        return []


class AcknowledgesEarly(MemorySink):
    """Keeps a batch until the next one comes; a restart of the backend finds it still here."""

    _kept: Sequence[Record] = ()

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        kept, self._kept = self._kept, records
        return super().publish(kept)

    def open(self) -> None:
        self._kept = ()
        super().open()

    def close(self) -> None:
        if self._kept and self._store is not None:
            super().publish(self._kept)
        super().close()


class SkipsTheBatchOnRetry(MemorySink):
    """Remembers what it was given, not what was delivered, and takes a retry for a duplicate."""

    _given: ClassVar[set[str]] = set()

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        fresh = [
            record for record in records if record.dedup_id not in self._given or not record.body.startswith(b'{"n"')
        ]
        self._given.update(record.dedup_id for record in records)
        return super().publish(fresh)


class Reorders(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        return super().publish(records[::-1])


class ReportsTheWrongIndex(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        return [replace(failure, index=failure.index - 1) for failure in super().publish(records)]


class SinksTheNeighbours(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        if any(len(record.body) > 1024 * 1024 for record in records):
            return [Failure(index, True, "too_large", "one of them is") for index in range(len(records))]
        return super().publish(records)


class RetriesTheHopeless(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        return [replace(failure, permanent=False) for failure in super().publish(records)]


class RaisesForeignErrors(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        try:
            return super().publish(records)
        except NotConnected as error:
            raise ConnectionResetError("from the client library") from error


class NeverRecovers(MemorySink):
    _broken = False

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        try:
            if self._broken:
                raise NotConnected("still")
            return super().publish(records)
        except NotConnected:
            self._broken = True
            raise


class IgnoresTheTimeLimit(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        if not store("contract").running.is_set():
            released.wait()
        return super().publish(records)


class HangsOnClose(MemorySink):
    def close(self) -> None:
        if self._store is not None:
            released.wait()
        super().close()


class ClosesOnlyOnce(MemorySink):
    _closed = False

    def close(self) -> None:
        if self._closed:
            raise RuntimeError("already closed")
        self._closed = self._store is not None
        super().close()


class LeavesAThread(MemorySink):
    def open(self) -> None:
        threading.Thread(target=released.wait, daemon=True).start()
        super().open()


class PublishesUnopened(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        if self._store is None:
            self.open()
        return super().publish(records)


class TripsOverAnEmptyBatch(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        return super().publish([records[0], *records[1:]])


class BelongsToOneThread(MemorySink):
    _opener = 0

    def open(self) -> None:
        self._opener = threading.get_ident()
        super().open()

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        if threading.get_ident() != self._opener:
            raise RuntimeError("opened by another thread")
        return super().publish(records)


class OpensOnlyOnce(MemorySink):
    def open(self) -> None:
        if self._store is not None:
            raise RuntimeError("already open")
        super().open()


class DropsHeaders(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        return super().publish([record._replace(headers={}) for record in records])


class DropsKeys(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        return super().publish([record._replace(key=None) for record in records])


class SpoilsText(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        ascii_only = [record._replace(body=record.body.decode("ascii", "ignore").encode()) for record in records]
        return super().publish(ascii_only)


class ForgetsEmptyBodies(MemorySink):
    def publish(self, records: Sequence[Record]) -> list[Failure]:
        return super().publish([record for record in records if record.body])


class PromisesToDeduplicate(MemorySink):
    features: ClassVar[Features] = replace(MemorySink.features, deduplicates=True)


class TakesAnyCredentials(MemorySink):
    features: ClassVar[Features] = replace(MemorySink.features, needs_credentials=True)


class AssumesItsDestination(MemorySink):
    features: ClassVar[Features] = replace(MemorySink.features, needs_destination=True)


class FakeHarness(MemoryHarness):
    def __init__(self, kind: type[Sink]) -> None:
        self.kind = kind  # type: ignore[misc, assignment]

    def wrong_credentials(self) -> dict[str, Any]:
        return {}

    def missing_destination(self) -> Missing:
        return Missing("nowhere", {}, {}, "")


Scenario = Callable[[SinkSuite, Harness], None]

CAUGHT: list[tuple[type[Sink], Scenario]] = [
    (LosesOne, SinkSuite.test_batches_arrive_whole_and_in_order),
    (DeliversNothingButSaysSo, SinkSuite.test_bodies_arrive_unchanged),
    (AcknowledgesEarly, SinkSuite.test_batches_arrive_whole_and_in_order),
    (AcknowledgesEarly, SinkSuite.test_nothing_reported_delivered_is_missing_after_a_restart_in_mid_batch),
    (SkipsTheBatchOnRetry, SinkSuite.test_a_backend_that_stalls_does_not_hold_the_caller_beyond_the_time_limit),
    (Reorders, SinkSuite.test_batches_arrive_whole_and_in_order),
    (ReportsTheWrongIndex, SinkSuite.test_a_record_that_is_too_large_is_refused_for_good_and_its_neighbours_arrive),
    (SinksTheNeighbours, SinkSuite.test_a_record_that_is_too_large_is_refused_for_good_and_its_neighbours_arrive),
    (RetriesTheHopeless, SinkSuite.test_a_record_that_is_too_large_is_refused_for_good_and_its_neighbours_arrive),
    (RaisesForeignErrors, SinkSuite.test_a_backend_that_is_down_is_not_connected_and_works_after_reopening),
    (RaisesForeignErrors, SinkSuite.test_nothing_reported_delivered_is_missing_after_a_restart_in_mid_batch),
    (RaisesForeignErrors, SinkSuite.test_closing_during_a_publish_ends_both),
    (NeverRecovers, SinkSuite.test_a_backend_that_is_down_is_not_connected_and_works_after_reopening),
    (IgnoresTheTimeLimit, SinkSuite.test_a_backend_that_stalls_does_not_hold_the_caller_beyond_the_time_limit),
    (IgnoresTheTimeLimit, SinkSuite.test_closing_during_a_publish_ends_both),
    (HangsOnClose, SinkSuite.test_closing_is_harmless_at_any_time),
    (HangsOnClose, SinkSuite.test_closing_during_a_publish_ends_both),
    (ClosesOnlyOnce, SinkSuite.test_closing_is_harmless_at_any_time),
    (LeavesAThread, SinkSuite.test_closing_leaves_no_thread_and_no_descriptor),
    (PublishesUnopened, SinkSuite.test_a_sink_that_is_not_open_says_so),
    (TripsOverAnEmptyBatch, SinkSuite.test_an_empty_batch_is_delivered_at_once),
    (BelongsToOneThread, SinkSuite.test_a_sink_may_be_used_by_one_thread_after_the_other),
    (OpensOnlyOnce, SinkSuite.test_a_sink_opens_again_after_close_and_over_itself),
    (DropsHeaders, SinkSuite.test_headers_arrive_beside_the_body),
    (DropsKeys, SinkSuite.test_keys_arrive_beside_the_body),
    (SpoilsText, SinkSuite.test_bodies_arrive_unchanged),
    (ForgetsEmptyBodies, SinkSuite.test_bodies_arrive_unchanged),
    (PromisesToDeduplicate, SinkSuite.test_what_is_sent_again_is_suppressed_where_promised),
    (TakesAnyCredentials, SinkSuite.test_wrong_credentials_are_a_clear_error_for_a_person),
    (AssumesItsDestination, SinkSuite.test_a_missing_destination_is_a_clear_error_or_is_made_when_configured_so),
]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Limits, "patience_seconds", 1.5)
    monkeypatch.setattr(Limits, "moment_seconds", 0.3)
    released.clear()
    SkipsTheBatchOnRetry._given.clear()
    yield
    released.set()
    forget("contract")


@pytest.mark.parametrize(("kind", "scenario"), CAUGHT, ids=lambda value: value.__name__.removeprefix("test_"))
def test_the_suite_catches_a_sink_that(kind: type[Sink], scenario: Scenario) -> None:
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        scenario(SinkSuite(), FakeHarness(kind))
    assert not isinstance(caught.value, pytest.skip.Exception)


def test_every_scenario_catches_somebody() -> None:
    scenarios = {name for name in dir(SinkSuite) if name.startswith("test_")}
    assert scenarios == {scenario.__name__ for _, scenario in CAUGHT}
