"""What is true of the file source alone: lines, positions, ids."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from relay.backends.file.config import FileSourceConfig
from relay.backends.file.source import FileSource
from relay.backends.registry import source_class
from relay.errors import ConfigError, NotConnected
from tests.backends.file.source_steps import append, make, numbered, read
from tests.backends.source_steps import Inbox
from tests.backends.steps import Limits, start


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "in.jsonl"
    made.touch()
    return made


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


class TestLines:
    def test_a_line_without_its_end_is_waited_for(self, path: Path) -> None:
        source = make(path)
        path.write_bytes(b"one\ntw")
        assert read(source) == ["one"]
        with path.open("ab") as file:
            file.write(b"o\n")
        assert read(source) == ["two"]

    def test_of_a_complete_file_the_last_line_needs_no_end(self, path: Path) -> None:
        path.write_bytes(b"one\ntwo")
        assert read(make(path, follow=False)) == ["one", "two"]

    def test_blank_lines_are_no_messages(self, path: Path) -> None:
        path.write_bytes(b"\n\none\n  \r\n\ntwo\n\n")
        assert read(make(path)) == ["one", "two"]

    def test_the_line_ends_of_windows_and_a_byte_order_mark_are_no_part_of_it(self, path: Path) -> None:
        path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
        assert read(make(path)) == ["one", "two"]

    def test_a_byte_order_mark_does_not_count_nor_does_it_matter_which_line_has_it(self, path: Path) -> None:
        mark = b"\xef\xbb\xbf"
        path.write_bytes(b"".join(mark + b"x" * size + b"\r\n" for size in (1023, 1024, 1025, 1026, 300_000)))
        assert [len(text) for text in read(make(path, max_line_bytes=1024))] == [1023, 1024, 1025, 1025, 1025]

    @pytest.mark.parametrize("size", [1022, 1023, 1024, 1025, 5000, 300_000, 3_000_000])
    def test_of_a_line_that_is_too_long_one_byte_too_much_is_read_and_its_neighbours_come(
        self, path: Path, size: int
    ) -> None:
        append(path, "one", "x" * size, "two")
        source = make(path, max_line_bytes=1024)
        assert [len(text) for text in read(source)] == [3, min(size, 1025), 3]

    @pytest.mark.parametrize("size", [262_143, 262_144, 262_145, 700_000])
    def test_a_line_as_long_as_a_block_comes_whole(self, path: Path, size: int) -> None:
        append(path, "x" * size, "two", "y" * size, "three")
        assert [len(text) for text in read(make(path))] == [size, 3, size, 5]

    def test_a_long_line_that_grows_slowly_comes_whole(self, path: Path) -> None:
        source = make(path)
        with path.open("ab", buffering=0) as file:
            for letter in b"abcdefgh":
                file.write(bytes([letter]) * 100_000)
                assert source.receive(10, 0) == []
            file.write(b"\n")
        (received,) = source.receive(10, 0)
        assert received.body == b"".join(bytes([letter]) * 100_000 for letter in b"abcdefgh")

    def test_positions_in_the_middle_of_a_block_are_kept_to(self, path: Path) -> None:
        append(path, *numbered(1, 50))
        received = make(path).receive(100, 0)
        for at in (0, 1, 7, 48):
            inbox = Inbox()
            inbox.write(received[: at + 1])
            assert read(make(path, inbox)) == numbered(at + 2, 50)


class TestOpening:
    def test_a_missing_file_is_a_matter_of_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="create it"):
            make(tmp_path / "nowhere" / "in.jsonl")

    def test_a_pipe_or_a_folder_is_refused_at_once(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for name in ("pipe", "."):
            with pytest.raises(ConfigError, match="not a regular file"):
                make(tmp_path / name)

    def test_between_renaming_and_creating_it_goes_on_with_the_old_file(self, path: Path, inbox: Inbox) -> None:
        append(path, *numbered(1, 3))
        source = make(path)
        inbox.write(source.receive(1, 0))
        source.close()
        path.rename(path.with_name("in.jsonl.1"))
        assert read(make(path, inbox)) == numbered(2, 3)

    @pytest.mark.parametrize("keys", [{"path": "in.jsonl"}, {"path": ""}, {"max_line_bytes": 10}, {"lines": 1}])
    def test_what_cannot_work_is_refused(self, keys: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            FileSourceConfig.model_validate({"path": "/in.jsonl"} | keys)

    def test_the_source_is_the_one_of_the_table(self) -> None:
        assert source_class("file") is FileSource


class TestIds:
    def test_are_the_same_each_time(self, path: Path) -> None:
        append(path, *numbered(1, 3))
        first, second = (make(path).receive(10, 0) for _ in range(2))
        assert [message.id for message in first] == [message.id for message in second]
        assert first[0].id.startswith(f"{path}/{path.stat().st_ino}.0/0.")

    def test_differ_where_a_file_was_made_anew_though_positions_were_lost(self, path: Path) -> None:
        append(path, *numbered(1, 3))
        before = {message.id for message in make(path).receive(10, 0)}
        os.truncate(path, 0)
        append(path, *numbered(4, 6))
        assert not before & {message.id for message in make(path).receive(10, 0)}


def test_a_long_wait_ends_with_close(path: Path) -> None:
    source = make(path, poll_ms=60_000)
    entered = threading.Event()

    def wait() -> None:
        entered.set()
        source.receive(1, 60)

    waiting = start(wait)
    entered.wait(Limits.patience_seconds)
    source.close()
    with pytest.raises(NotConnected):
        waiting(Limits.moment_seconds)


def test_an_old_acknowledgement_takes_nothing_back(path: Path) -> None:
    append(path, *numbered(1, 6))
    source = make(path)
    first, second = source.receive(2, 0), source.receive(2, 0)
    for batch in (first, second, first):
        source.ack(batch)
    source.receive(1, 0)
    source.release()
    assert read(source) == numbered(5, 6)
