"""The folder of `relay up`: ours, or empty; and what is in it is for us alone."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.errors import ConfigError
from relay.local import own_folder
from relay.local.servers import EmbeddedPostgres
from relay.local.up import _folder


def seen(folder: Path) -> list[tuple[str, int, bytes]]:
    found = [folder, *sorted(folder.rglob("*"))]
    return [(str(path), path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in found]


def a_project(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / ".gitignore").write_text("secrets.txt\n")
    (folder / "env").write_text("theirs")


def with_a_foreign_marker(folder: Path) -> None:
    a_project(folder)
    (folder / own_folder.MARKER).symlink_to(folder / "env")


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


@pytest.mark.parametrize("make", [a_project, with_a_foreign_marker, open_to_all, lambda path: path.write_text("file")])
def test_a_folder_of_others_is_refused_and_nothing_in_it_changes(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "data")
    before = seen(tmp_path)
    with pytest.raises(ConfigError, match="--data"), _folder(tmp_path / "data", with_postgres=True):
        pass
    assert seen(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of another user")
def test_so_is_an_empty_one_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", 12345, 12345)
    with pytest.raises(ConfigError, match="another user"), _folder(tmp_path / "data", with_postgres=False):
        pass


def test_an_empty_one_keeps_its_mode_and_is_used_again_with_what_its_owner_changed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o750)
    with _folder(folder, with_postgres=False):
        (folder / ".gitignore").write_text("mine")
    with _folder(folder, with_postgres=False):
        assert (folder / ".gitignore").read_text() == "mine"
    assert folder.stat().st_mode & 0o777 == 0o750


def test_one_that_is_made_is_for_us_alone(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with _folder(tmp_path / "data", with_postgres=False):
            pass
    finally:
        os.umask(mask)
    assert [path.name for path in (tmp_path / "data").rglob("*") if path.stat().st_mode & 0o077] == []
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root PostgreSQL runs as another user")
def test_as_root_no_folder_is_opened_for_postgresql(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigError, match=f"may not pass through {closed}"):
        EmbeddedPostgres(closed / "data").start()
    assert closed.stat().st_mode & 0o777 == 0o700
