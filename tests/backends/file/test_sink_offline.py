import errno
import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from relay.backends.common.os_errors import OS_ERRORS, translate
from relay.backends.file.config import FileSinkConfig
from relay.backends.file.sink import FileSink
from relay.errors import ConfigError, NotConnected
from relay.models import Record


def sink_for(path: Path, **options: Any) -> FileSink:
    return FileSink(FileSinkConfig(path=str(path), **options), "to-file")


def records(*bodies: bytes) -> list[Record]:
    return [Record(number, f"orders:{number}", "", None, body, {}) for number, body in enumerate(bodies, 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def sink(path: Path) -> Iterator[FileSink]:
    sink = sink_for(path)
    sink.open()
    yield sink
    sink.close()


class TestAPartialLastLineOfAnotherProgram:
    @pytest.mark.parametrize("left", [b"24 bytes, and no newline", b"one\ntw", b"\nx", b"one\n" + b"x" * 200_000])
    def test_is_never_cut_and_ours_begins_after_it(self, path: Path, left: bytes) -> None:
        path.write_bytes(left)
        sink = sink_for(path)
        sink.open()
        assert path.read_bytes() == left
        sink.publish(records(b"next"))
        sink.publish(records(b"and one more"))
        sink.close()
        assert path.read_bytes() == left + b"\nnext\nand one more\n"

    @pytest.mark.parametrize("reopens", [True, False])
    def test_is_not_cut_either_where_we_wrote_before(self, path: Path, sink: FileSink, reopens: bool) -> None:
        sink.publish(records(b"one"))
        with path.open("ab") as other:
            other.write(b"theirs")
        if reopens:
            sink.open()
        sink.publish(records(b"two"))
        path.write_bytes(b"shorter")  # the same inode
        sink.publish(records(b"three"))
        assert path.read_bytes() == b"shorter\nthree\n"

    def test_survives_a_full_disk(self, path: Path) -> None:
        path.write_bytes(b"theirs")
        sink = sink_for(path)
        sink.open()
        with file_size_limit(5_000), pytest.raises(NotConnected):
            sink.publish(records(*[b"x" * 100] * 100))
        assert path.read_bytes() == b"theirs"
        sink.publish(records(b"ours"))
        sink.close()
        assert path.read_bytes() == b"theirs\nours\n"

    def test_is_not_cut_by_the_undoing_of_a_write(self, path: Path, sink: FileSink, monkeypatch: Any) -> None:
        """Another program appends while our batch is being written, without the lock."""

        def write_whole(fd: int, data: bytes) -> None:
            os.write(fd, data[:5])
            with path.open("ab") as other:
                other.write(b"theirs")
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr("relay.backends.file.sink.write_whole", write_whole)
        with pytest.raises(NotConnected, match="full"):
            sink.publish(records(b"x" * 100))
        monkeypatch.undo()
        sink.publish(records(b"ours"))
        assert path.read_bytes() == b"xxxxxtheirs\nours\n"

    def test_nor_where_the_file_system_has_no_attributes(self, path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(os, "setxattr", _unsupported)
        monkeypatch.setattr(os, "getxattr", _unsupported)
        path.write_bytes(b"theirs")
        sink = sink_for(path)
        sink.open()
        sink.publish(records(b"ours"))
        sink.close()
        assert path.read_bytes() == b"theirs\nours\n"


def _unsupported(*_: Any) -> None:
    raise OSError(errno.EOPNOTSUPP, "not supported")


class TestRotation:
    def test_a_file_that_was_moved_away_is_followed_by_a_new_one(self, path: Path, sink: FileSink) -> None:
        sink.publish(records(b"one"))
        path.rename(path.with_suffix(".1"))
        sink.publish(records(b"two"))
        assert (path.with_suffix(".1").read_bytes(), path.read_bytes()) == (b"one\n", b"two\n")

    def test_a_file_that_was_deleted_or_replaced_is_made_anew(self, path: Path, sink: FileSink) -> None:
        sink.publish(records(b"one"))
        path.unlink()
        sink.publish(records(b"two"))
        assert path.read_bytes() == b"two\n"
        path.unlink()
        path.write_bytes(b"theirs\n")
        sink.publish(records(b"three"))
        assert path.read_bytes() == b"theirs\nthree\n"

    def test_a_file_that_was_emptied_is_filled_from_its_begin(self, path: Path, sink: FileSink) -> None:
        sink.publish(records(b"one"))
        os.truncate(path, 0)
        sink.publish(records(b"two"))
        assert path.read_bytes() == b"two\n"

    def test_a_folder_that_is_gone_is_not_connected_until_opened_again(self, tmp_path: Path) -> None:
        folder = tmp_path / "logs"
        folder.mkdir()
        sink = sink_for(folder / "out.jsonl")
        sink.open()
        (folder / "out.jsonl").unlink()
        folder.rmdir()
        with pytest.raises(NotConnected) as caught:
            sink.publish(records(b"one"))
        assert caught.value.code == "no_folder"
        with pytest.raises(ConfigError, match="create its folder"):
            sink.open()
        folder.mkdir()
        sink.open()
        assert sink.publish(records(b"one")) == []
        sink.close()


class TestWhenTheDiskTakesOnlyAPart:
    def test_the_batch_leaves_no_trace_and_can_be_sent_again(self, path: Path, sink: FileSink) -> None:
        sink.publish(records(b"one"))
        batch = records(*[b"x" * 100] * 100)
        with file_size_limit(5_000), pytest.raises(NotConnected) as caught:
            sink.publish(batch)
        assert caught.value.code == "file_too_large"
        assert path.read_bytes() == b"one\n"
        assert sink.publish(batch) == []
        assert path.read_bytes() == b"one\n" + (b"x" * 100 + b"\n") * 100


class TestTwoWriters:
    def test_wait_for_each_other_and_say_so_when_it_takes_too_long(self, path: Path) -> None:
        sink = sink_for(path, timeout_ms=50)
        sink.open()
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            for attempt in (lambda: sink.publish(records(b"one")), sink.open):
                with pytest.raises(NotConnected, match="another process holds the lock for more than 50 ms") as caught:
                    attempt()
                assert caught.value.code == "locked"
        assert path.read_bytes() == b""
        sink.open()
        assert sink.publish(records(b"one")) == []
        sink.close()


class TestConfiguration:
    def test_a_relative_path_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="absolute"):
            FileSinkConfig(path="out.jsonl")

    def test_a_reference_is_not_judged_before_it_is_resolved(self) -> None:
        assert FileSinkConfig(path="${env:LOG_DIR}/out.jsonl").path

    @pytest.mark.parametrize("permissions", ["rw", "999", "7", "00640"])
    def test_permissions_are_three_octal_digits(self, permissions: str) -> None:
        with pytest.raises(ValidationError):
            FileSinkConfig(path="/tmp/x", permissions=permissions)

    def test_a_new_file_gets_the_permissions(self, path: Path) -> None:
        sink = sink_for(path, permissions="0604")
        sink.open()
        sink.close()
        assert path.stat().st_mode & 0o777 == 0o604 & ~current_umask()

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
    def test_what_is_not_a_regular_file_is_refused_at_once(self, path: Path, make: Any) -> None:
        make(path)
        with pytest.raises(ConfigError, match="regular file"):
            sink_for(path).open()

    def test_a_missing_folder_is_named_with_the_pipeline(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"'to-file'.*nowhere.*create its folder"):
            sink_for(tmp_path / "nowhere" / "out.jsonl").open()

    def test_without_fsync_it_delivers_too(self, path: Path) -> None:
        sink = sink_for(path, fsync=False)
        sink.open()
        assert sink.publish(records(b"one")) == []
        sink.close()
        assert path.read_bytes() == b"one\n"


def test_a_body_with_a_raw_newline_stays_one_line(path: Path, sink: FileSink) -> None:
    sink.publish(records(b'{"a":\n1}', b"2"))
    assert path.read_bytes() == b'{"a": 1}\n2\n'


class TestTheTableOfSystemErrors:
    # ERRORS of open(2), write(2), fsync(2), ftruncate(2), flock(2) and fstat(2), without those that are about
    # wrong arguments of a program (EFAULT, EDESTADDRREQ) and the one that Python answers by repeating (EINTR).
    # fmt: off
    DOCUMENTED = (
        "EACCES", "EAGAIN", "EBADF", "EDQUOT", "EFBIG", "EINVAL", "EIO", "EISDIR", "ELOOP", "EMFILE", "ENAMETOOLONG",
        "ENFILE", "ENODEV", "ENOENT", "ENOLCK", "ENOMEM", "ENOSPC", "ENOTDIR", "ENXIO", "EOPNOTSUPP", "EPERM", "EPIPE",
        "EROFS", "ESPIPE", "ETXTBSY", "EWOULDBLOCK",
    )
    # fmt: on

    @pytest.mark.parametrize("name", DOCUMENTED)
    def test_knows_every_documented_error(self, name: str) -> None:
        assert getattr(errno, name) in OS_ERRORS.answers

    @pytest.mark.parametrize("number", sorted(number for number in OS_ERRORS.answers if isinstance(number, int)))
    def test_publish_never_says_configuration_and_open_does_where_a_person_must_act(self, number: int) -> None:
        error = OSError(number, os.strerror(number))
        publishing = translate(error, "here", opening=False)
        assert isinstance(publishing, NotConnected)
        assert publishing.code == OS_ERRORS.answers[number]
        needs_operator = publishing.code in OS_ERRORS.needs_operator
        assert isinstance(translate(error, "here", opening=True), ConfigError) == needs_operator

    def test_takes_an_unknown_error_for_a_passing_one(self) -> None:
        unknown = translate(OSError(errno.ESTALE, "stale"), "here", opening=True)
        assert isinstance(unknown, NotConnected)
        assert unknown.code == "io"


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """The system writes up to the limit, and then refuses: what a full disk does, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
