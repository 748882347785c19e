"""The file source over rotations of its file."""

import logging
import os
import shutil
from pathlib import Path

import pytest

from tests.backends.file.source_steps import append, make, numbered, older, read, texts
from tests.backends.source_steps import Inbox


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "in.jsonl"
    made.touch()
    return made


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


class TestRotationByRenaming:
    def test_the_old_file_is_read_to_its_end_and_then_the_new_one(self, path: Path) -> None:
        source = make(path)
        append(path, *numbered(1, 3))
        assert texts(source.receive(2, 0)) == numbered(1, 2)
        path.rename(path.with_name("in.jsonl.1"))
        append(path, *numbered(4, 5))
        assert read(source) == numbered(3, 5)

    def test_while_the_new_one_is_empty_the_old_one_may_grow(self, path: Path) -> None:
        source = make(path)
        append(path, *numbered(1, 2))
        assert read(source) == numbered(1, 2)
        rotated = path.rename(path.with_name("in.jsonl.1"))
        assert read(source) == []
        path.touch()
        assert read(source) == []
        append(rotated, *numbered(3, 3))
        assert read(source) == numbered(3, 3)
        append(path, *numbered(4, 4))
        assert read(source) == numbered(4, 4)

    def test_the_old_one_must_have_been_silent(self, path: Path) -> None:
        source = make(path, rotate_wait_ms=600_000)
        append(path, *numbered(1, 1))
        rotated = path.rename(path.with_name("in.jsonl.1"))
        append(path, *numbered(3, 3))
        assert read(source) == numbered(1, 1)
        append(rotated, *numbered(2, 2))
        assert read(source) == numbered(2, 2)
        older(rotated, 601)
        assert read(source) == numbered(3, 3)

    def test_a_last_line_without_its_end_comes_before_the_new_file(self, path: Path) -> None:
        path.write_bytes(b"one\ntwo")
        source = make(path)
        path.rename(path.with_name("in.jsonl.1"))
        append(path, "three")
        assert read(source) == ["one", "two", "three"]

    @pytest.mark.parametrize("name", ["in.jsonl.{}", "in.jsonl-2025030{}", "in.jsonl.2025-03-0{}"])
    def test_several_while_nobody_reads_come_in_their_order(self, path: Path, inbox: Inbox, name: str) -> None:
        append(path, *numbered(1, 2))
        source = make(path)
        inbox.write(source.receive(1, 0))
        source.close()
        for day in (1, 2, 3):
            rotated = path.rename(path.with_name(name.format(day)))
            older(rotated, 100 - day)
            append(path, *numbered(day * 10, day * 10 + 1))
        expected = [*numbered(2, 2), *numbered(10, 11), *numbered(20, 21), *numbered(30, 31)]
        assert read(make(path, inbox), inbox) == expected
        assert (len(inbox.rows), inbox.repeats) == (8, 0)

    def test_the_old_file_may_be_gone_while_it_is_open(self, path: Path) -> None:
        source = make(path)
        append(path, *numbered(1, 2))
        source.receive(1, 0)
        path.unlink()
        append(path, *numbered(3, 3))
        assert read(source) == numbered(2, 3)

    def test_what_cannot_be_found_again_is_said(
        self, path: Path, inbox: Inbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        append(path, *numbered(1, 3))
        source = make(path)
        inbox.write(source.receive(2, 0))
        source.close()
        path.rename(path.with_name("in.jsonl.1.gz"))
        append(path.with_name("in.jsonl.0"), *numbered(4, 4))
        append(path, *numbered(5, 6))
        with caplog.at_level(logging.WARNING):
            assert read(make(path, inbox), inbox) == numbered(4, 6)
        assert "is gone or was written over" in caplog.text
        assert inbox.repeats == 0

    def test_other_files_beside_it_are_not_read(self, path: Path) -> None:
        source = make(path)
        append(path, *numbered(1, 1))
        assert read(source) == numbered(1, 1)
        path.rename(path.with_name("in.jsonl.1"))
        for name in ("in.jsonl.offset", "in.jsonl.lock", "in.jsonl-backup", "in.jsonl2", "other.jsonl.1"):
            append(path.with_name(name), "not this")
        append(path, *numbered(2, 2))
        assert read(source) == numbered(2, 2)

    def test_an_inode_that_is_used_again_is_another_file(self, path: Path, inbox: Inbox) -> None:
        append(path, *numbered(1, 2))
        source = make(path)
        inbox.write(source.receive(10, 0))
        source.close()
        # As if removed and recreated with the same inode.
        path.write_text("")
        append(path, *numbered(1, 1), *numbered(7, 8))
        assert read(make(path, inbox), inbox) == [*numbered(1, 1), *numbered(7, 8)]
        assert (len(inbox.rows), inbox.repeats) == (5, 0)


class TestRotationByCopyAndTruncate:
    def rotate(self, path: Path) -> None:
        shutil.copyfile(path, path.with_name("in.jsonl.1"))
        os.truncate(path, 0)

    def test_what_was_not_read_is_read_from_the_copy(self, path: Path, inbox: Inbox) -> None:
        source = make(path)
        append(path, *numbered(1, 5))
        inbox.write(source.receive(2, 0))
        self.rotate(path)
        append(path, *numbered(6, 6))
        assert read(source, inbox) == numbered(3, 6)
        assert (len(inbox.rows), inbox.repeats) == (6, 0)

    def test_also_when_nobody_was_there(self, path: Path, inbox: Inbox) -> None:
        source = make(path)
        append(path, *numbered(1, 5))
        inbox.write(source.receive(2, 0))
        source.close()
        self.rotate(path)
        append(path, *numbered(6, 99))
        source = make(path, inbox)
        inbox.write(source.receive(1, 0))
        source.close()
        # In the middle of the copy, too.
        assert read(make(path, inbox), inbox) == numbered(4, 99)
        assert (len(inbox.rows), inbox.repeats) == (99, 0)

    def test_the_same_lines_in_the_same_places_are_new_messages(self, path: Path, inbox: Inbox) -> None:
        source = make(path)
        append(path, *numbered(1, 3))
        inbox.write(source.receive(2, 0))
        self.rotate(path)
        append(path, *numbered(1, 1))
        assert read(source, inbox) == [*numbered(3, 3), *numbered(1, 1)]
        append(path, *numbered(2, 3))
        assert read(source, inbox) == numbered(2, 3)
        assert (len(inbox.rows), inbox.repeats) == (6, 0)

    def test_an_older_file_that_began_alike_is_no_copy(self, path: Path) -> None:
        append(path.with_name("in.jsonl.1"), *numbered(1, 3), "of last year")
        older(path.with_name("in.jsonl.1"), 100)
        source = make(path)
        append(path, *numbered(1, 3))
        assert read(source) == numbered(1, 3)
        os.truncate(path, 0)
        append(path, "new")
        assert read(source) == ["new"]

    def test_without_a_copy_it_is_read_from_its_beginning(
        self, path: Path, inbox: Inbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = make(path)
        append(path, *numbered(1, 5))
        assert read(source, inbox) == numbered(1, 5)
        os.truncate(path, 0)
        append(path, *numbered(1, 2))
        with caplog.at_level(logging.WARNING):
            assert read(source, inbox) == numbered(1, 2)
        assert "truncated" in caplog.text
        assert (len(inbox.rows), inbox.repeats) == (7, 0)

    def test_a_truncation_is_seen_when_the_file_has_already_grown_longer(self, path: Path, inbox: Inbox) -> None:
        source = make(path)
        append(path, "header", *numbered(1, 3))
        assert read(source, inbox) == ["header", *numbered(1, 3)]
        os.truncate(path, 0)
        append(path, "header", *numbered(11, 99))
        assert read(source, inbox) == ["header", *numbered(11, 99)]
        assert inbox.repeats == 0

    def test_a_truncation_in_the_middle_of_a_line_is_seen(self, path: Path) -> None:
        source = make(path)
        path.write_text("half a line")
        assert read(source) == []
        os.truncate(path, 0)
        append(path, "new")
        assert read(source) == ["new"]
