"""Drains that lose PostgreSQL in the middle of something."""

import gzip
import json

from relay.backends.object_storage.sink import ObjectStorageSink
from relay.backends.postgresql.sink import InboxSink
from relay.drains.lease import Lease
from relay.errors import NotConnected
from tests.waiting import wait_until
from workers.drain import DIRECTIONS


def end_sessions(bench):
    others = "datname = current_database() and pid <> pg_backend_pid() and usename = current_user"
    bench.query(f"select pg_terminate_backend(pid) from pg_stat_activity where {others}")


def test_an_object_in_hand_is_thrown_away_with_its_drain(bench, tmp_path, monkeypatch):
    folder = tmp_path / "lake"
    bench.publish_to(sink_type="object_storage", path=str(folder), create=True, max_age_ms=1, batch_size=2)
    ids = [f"orders:{number}" for number in bench.publish(6)]
    append = ObjectStorageSink.append
    appended: list[int] = []

    def append_and_interrupt(self, records):
        failures = append(self, records)
        if not appended:
            end_sessions(bench)
        appended.append(len(records))
        return failures

    monkeypatch.setattr(ObjectStorageSink, "append", append_and_interrupt)
    bench.drain()
    # On a busy machine the connections that were cut are not replaced at once.
    objects = wait_until(lambda: bench.drain() and sorted(folder.rglob("*.jsonl.gz")), 30, "the object is written")
    assert [json.loads(row)["id"] for name in objects for row in gzip.decompress(name.read_bytes()).splitlines()] == ids


def test_a_drain_that_was_emitted_before_its_time_limits_grew_works_by_the_new_ones(bench, tmp_path):
    """No publish with a limit of 10 s fits into a lease of 100 ms, however often that is renewed."""
    out = tmp_path / "out.jsonl"
    bench.publish_to(sink_type="file", path=str(out), timeout_ms=10_000)
    bench.publish(3)
    with bench.draining(lease_ms=100):
        pass
    assert bench.last("outcome") == "idle"
    assert len(out.read_text().splitlines()) == 3


def test_a_lease_that_is_too_short_however_often_it_is_renewed_is_told(bench, tmp_path, monkeypatch):
    """As with a time limit of 9999 ms, a lease of 10000 ms, and a PostgreSQL that takes 2 ms to answer."""
    bench.publish_to(sink_type="file", path=str(tmp_path / "out.jsonl"))
    bench.publish(3)
    with monkeypatch.context() as patched:
        patched.setattr(Lease, "covers", lambda _lease, _seconds: False)
        with bench.draining():
            pass
    assert bench.last("outcome") == "failed"
    assert "raise visibility_timeout_ms" in bench.last("error")
    assert bench.drain() == "idle"


def test_a_drain_that_is_cut_off_in_the_middle_of_a_round_trip_ends_as_failed(bench, tmp_path, monkeypatch):
    def cut_off(_resources, session):
        connection = session.connection
        connection.pgconn.enter_pipeline_mode()
        connection.pgconn.send_query_params(b"select 1", None)
        raise NotConnected("PostgreSQL: cannot exit pipeline mode while busy", code="lost")

    bench.publish_to(sink_type="file", path=str(tmp_path / "out.jsonl"))
    with monkeypatch.context() as patched:
        patched.setitem(DIRECTIONS, "forward", cut_off)
        assert bench.drain() == "failed"
    assert bench.drain() == "idle"


def test_a_joined_drain_that_loses_its_database_ends_as_failed_and_goes_on(bench, monkeypatch):
    bench.query("select tide.inbox_create('received')")
    bench.publish_to(sink_type="inbox", inbox="received")
    ids = [f"orders:{number}" for number in bench.publish(3)]
    publish = InboxSink.publish
    interrupted: list[bool] = []

    def publish_after_an_interruption(self, records):
        if not interrupted:
            interrupted.append(True)
            end_sessions(bench)
        return publish(self, records)

    monkeypatch.setattr(InboxSink, "inbox", None)  # what PostgreSQL moves by itself: test_local_inbox.py
    monkeypatch.setattr(InboxSink, "publish", publish_after_an_interruption)
    assert bench.drain() == "failed"
    assert bench.drain() == "idle"
    assert bench.event_ids("received") == ids
