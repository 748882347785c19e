"""The object storage sink on a local folder: the suite, and names, bytes and memory, which are the same for buckets."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay import reach
from relay.backends.object_storage.encode import Spool
from relay.backends.object_storage.sink import ObjectStorageSink
from relay.backends.object_storage.stores import INCOMING
from relay.backends.sink import ObjectLimits, ObjectSink
from relay.errors import ConfigError, NotConnected
from tests.backends.harness import Harness
from tests.backends.object_storage import test_sink as test_object_storage
from tests.backends.object_storage.harness import FolderHarness
from tests.backends.steps import numbers, opened, publish, record, records
from tests.backends.suite import SinkSuite


@pytest.fixture
def folder(tmp_path: Path) -> FolderHarness:
    return FolderHarness(tmp_path / "objects", prefix="")


class TestLinesInAFolder(
    SinkSuite,
    variant_of=test_object_storage.TestLinesInABucket,
    because="a folder takes an object by renaming a file, and has no network and no credentials",
    runs=[
        SinkSuite.test_bodies_arrive_unchanged,
        SinkSuite.test_batches_arrive_whole_and_in_order,
        SinkSuite.test_what_is_sent_again_is_suppressed_where_promised,
        SinkSuite.test_closing_is_harmless_at_any_time,
        SinkSuite.test_a_sink_that_is_not_open_says_so,
        SinkSuite.test_a_sink_opens_again_after_close_and_over_itself,
        SinkSuite.test_closing_leaves_no_thread_and_no_descriptor,
        SinkSuite.test_a_missing_destination_is_a_clear_error_or_is_made_when_configured_so,
    ],
):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return FolderHarness(tmp_path / "objects")


class TestParquetInAFolder(
    SinkSuite,
    variant_of=test_object_storage.TestLinesInABucket,
    because="what an object holds is another format, which has keys and headers; where it goes is the same",
    runs=[
        SinkSuite.test_bodies_arrive_unchanged,
        SinkSuite.test_keys_arrive_beside_the_body,
        SinkSuite.test_headers_arrive_beside_the_body,
        SinkSuite.test_an_empty_batch_is_delivered_at_once,
        SinkSuite.test_batches_arrive_whole_and_in_order,
        SinkSuite.test_a_record_that_is_too_large_is_refused_for_good_and_its_neighbours_arrive,
        SinkSuite.test_what_is_sent_again_is_suppressed_where_promised,
        SinkSuite.test_closing_leaves_no_thread_and_no_descriptor,
    ],
):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return FolderHarness(tmp_path / "objects", format="parquet", compression="zstd")


def gathering(harness: Harness, **keys: Any) -> ObjectSink:
    sink = harness.make_sink(**keys)
    assert isinstance(sink, ObjectSink)
    sink.open()
    return sink


def test_batches_become_one_object_named_by_its_first_and_last_message(folder: FolderHarness) -> None:
    sink = gathering(folder)
    for first, count in ((17, 3), (20, 200), (500, 1)):
        assert sink.append(records(folder, first, count)) == []
        assert folder.objects_without_incoming() == {}
    sink.seal()
    assert list(folder.objects()) == ["orders-0000000000000000017-0000000000000000500.jsonl.gz"]
    assert numbers(folder) == [*range(17, 220), 500]
    sink.close()


@pytest.mark.parametrize("keys", [{}, {"compression": "zstd"}, {"format": "parquet"}], ids=["gzip", "zstd", "parquet"])
def test_the_same_messages_written_again_overwrite_the_object_with_itself(folder: FolderHarness, keys: Any) -> None:
    sent = records(folder, 1, 1000, padding=500)
    written: list[dict[str, bytes]] = []
    for size in (1000, 77):
        sink = gathering(folder, **keys)
        for begin in range(0, len(sent), size):
            sink.append(sent[begin : begin + size])
        sink.seal()
        sink.close()
        written.append(folder.objects())
    assert len(written[0]) == 1
    assert written[0] == written[1]


def test_an_object_follows_the_one_before(folder: FolderHarness) -> None:
    sink = gathering(folder)
    for first in (1, 11):
        sink.append(records(folder, first, 10))
        sink.seal()
    sink.close()
    assert [name[:46] for name in folder.objects()] == [
        "orders-0000000000000000001-0000000000000000010",
        "orders-0000000000000000011-0000000000000000020",
    ]


def test_nothing_gathered_is_no_object(folder: FolderHarness) -> None:
    sink = gathering(folder)
    sink.seal()
    sink.append([])
    sink.seal()
    sink.close()
    assert folder.objects() == {}


def test_what_parquet_refuses_is_told_and_counts_for_the_name(folder: FolderHarness) -> None:
    sink = gathering(folder, format="parquet")
    batch = records(folder, 1, 5)
    batch[4] = batch[4]._replace(body=b"\xff")
    assert [(f.index, f.permanent, f.code) for f in sink.append(batch)] == [(4, True, "not_utf8")]
    sink.seal()
    assert list(folder.objects()) == ["orders-0000000000000000001-0000000000000000005.parquet"]
    assert numbers(folder) == [1, 2, 3, 4]
    assert len(sink.append(batch[4:])) == 1
    sink.seal()
    sink.close()
    assert len(folder.objects()) == 1, "an object of nothing"


def test_an_object_goes_where_the_date_of_its_first_message_says(folder: FolderHarness) -> None:
    moments = ("2025-03-01T23:59:59.000000Z", "2025-03-02T00:00:00.000000Z", "2025-03-02T00:00:01.000000Z")
    batch = [each._replace(created_at=moment) for each, moment in zip(records(folder, 1, 3), moments, strict=True)]
    with opened(folder, partition_by="day={year}-{month}-{day}/{hour}") as sink:
        publish(sink, batch)
    (name,) = folder.objects()
    assert name.startswith("day=2025-03-01/23/orders-")


def test_the_limits_of_an_object_are_the_drains_to_keep(folder: FolderHarness) -> None:
    sink = folder.make_sink(max_rows=7, max_bytes=8, max_age_ms=9)
    assert isinstance(sink, ObjectSink)
    assert sink.limits == ObjectLimits(max_rows=7, max_bytes=8, max_age_ms=9)


def test_an_object_in_hand_goes_with_the_sink(folder: FolderHarness) -> None:
    sink = gathering(folder)
    sink.append(records(folder, 1, 10))
    sink.close()
    sink.open()
    sink.seal()
    sink.append(records(folder, 11, 1))
    sink.seal()
    sink.close()
    assert numbers(folder) == [11]


def test_a_full_disk_drops_the_object_in_hand_and_the_same_messages_can_be_gathered_again(
    folder: FolderHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = records(folder, 1, 1000, padding=1000)
    with monkeypatch.context() as patched:
        full = lambda _store: Spool(open("/dev/full", "wb", buffering=0))  # noqa: E731, SIM115
        patched.setattr("relay.backends.object_storage.stores.FolderStore.spool", full)
        sink = folder.make_sink(compression="none")
        assert isinstance(sink, ObjectStorageSink)
        patched.setattr(sink._store, "open", lambda: None)
        sink.open()
        assert sink.append(batch[:10]) == []
        with pytest.raises(NotConnected) as caught:
            sink.append(batch[10:])
        assert caught.value.code == "disk_full"
        sink.seal()
    sink = gathering(folder)
    assert publish(sink, batch) == []
    sink.close()
    assert numbers(folder) == list(range(1, 1001))


def test_an_object_is_on_disk_before_it_has_its_name_and_its_name_before_it_counts(
    folder: FolderHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, int]] = []
    fsync, rename = os.fsync, os.rename

    def noting_fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        steps.append(("folder", 0) if stat.S_ISDIR(status.st_mode) else ("file", status.st_size))
        fsync(descriptor)

    def noting_rename(source: str, target: str) -> None:
        steps.append(("rename", os.stat(source).st_size))
        rename(source, target)

    monkeypatch.setattr("os.fsync", noting_fsync)
    monkeypatch.setattr("os.rename", noting_rename)
    with opened(folder, partition_by="{year}") as sink:
        publish(sink, records(folder, 1, 10))
    (data,) = folder.objects().values()
    # The first: the folder of the year was made in the folder of the objects.
    assert steps == [("folder", 0), ("file", len(data)), ("rename", len(data)), ("folder", 0)]


def test_a_folder_that_went_away_is_not_connected_and_then_for_a_person(folder: FolderHarness) -> None:
    sink = gathering(folder)
    sink.append(records(folder, 1, 1))
    folder.path.rename(folder.path.with_name("elsewhere"))
    with pytest.raises(NotConnected):
        sink.seal()
    with pytest.raises(ConfigError, match="create"):
        sink.open()
    sink.close()
    assert not folder.path.exists(), "an unmounted volume must not be written beside"


def test_a_file_where_the_folder_should_be_is_for_a_person(folder: FolderHarness) -> None:
    (folder.path / "file").touch()
    with pytest.raises(ConfigError):
        folder.make_sink(path=str(folder.path / "file")).open()


def test_a_crash_leaves_a_file_that_the_next_one_removes_and_a_writer_at_work_is_left_alone(
    folder: FolderHarness,
) -> None:
    incoming = folder.path / INCOMING
    incoming.mkdir()
    (incoming / "0123456789abcdef").write_bytes(b"half")
    (incoming / "notes.txt").write_bytes(b"of another program")
    at_work = gathering(folder)
    assert [path.name for path in incoming.iterdir()] == ["notes.txt"]
    (incoming / "notes.txt").unlink()
    at_work.append(records(folder, 1, 3))
    gathering(folder).close()
    at_work.seal()
    at_work.close()
    assert numbers(folder) == [1, 2, 3]


def test_a_link_in_the_folder_does_not_lead_out_of_what_the_operator_allows(
    folder: FolderHarness, tmp_path: Path
) -> None:
    reach.put_in_force(reach.Reach(sink_folders=(str(folder.path),)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder.path / "lake").mkdir()
    (folder.path / "lake" / "raw").symlink_to(elsewhere)
    sink = folder.make_sink(path=str(folder.path / "lake"), prefix="raw")
    sink.open()
    sink.append([record(folder, 1)])
    with pytest.raises(NotConnected, match="RELAY_SINK_FOLDERS"):
        sink.seal()
    sink.close()
    assert list(elsewhere.iterdir()) == []


def test_objects_are_for_others_to_read(folder: FolderHarness) -> None:
    umask = os.umask(0o022)
    try:
        with opened(folder) as sink:
            publish(sink, [record(folder, 1)])
    finally:
        os.umask(umask)
    (name,) = folder.objects()
    assert (folder.path / name).stat().st_mode & 0o777 == 0o640


MEMORY = """
import re, sys
from relay import reach
from relay.models import Record
from relay.backends.object_storage.sink import ObjectStorageSink

reach.put_in_force(reach.Reach(sink_folders=("/",)))
sink = ObjectStorageSink(ObjectStorageSink.config_model.model_validate({{"path": sys.argv[1], "format": "{0}"}}), "p")
sink.open()
for first in range(1, 100_000, 1000):
    body = b'{{"text": "' + b"%d " % first * 150 + b'"}}'
    sink.append([Record(n, f"o:{{n}}", "s", "k", body, {{"a": "b"}}) for n in range(first, first + 1000)])
sink.seal()
sink.close()
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.parametrize(("format_", "limit_mb"), [("jsonl", 70), ("parquet", 130)])
def test_a_hundred_thousand_messages_are_gathered_in_bounded_memory(
    tmp_path: Path, format_: str, limit_mb: int
) -> None:
    command = [sys.executable, "-c", MEMORY.format(format_), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < limit_mb
