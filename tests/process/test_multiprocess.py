"""The folder of the workers' metrics, beside what other users put into the same temporary folder."""

import os
import tempfile
from pathlib import Path

import pytest

from relay.errors import ConfigError
from relay.process import multiprocess
from relay.process.multiprocess import MULTIPROC_VARIABLE, prepare_multiprocess

ANOTHER = 12345

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of another user")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(MULTIPROC_VARIABLE, "")
    monkeypatch.setattr(multiprocess, "_held", [])
    return tmp_path


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("link", [True, False])
def test_one_that_another_user_made_is_refused(
    shared: Path, given: bool, link: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared / "given" if given else multiprocess._run_folder()
    (shared / "real").mkdir()
    folder.symlink_to(shared / "real") if link else folder.mkdir()
    os.chown(folder, ANOTHER, ANOTHER, follow_symlinks=False)
    if given:
        monkeypatch.setenv(MULTIPROC_VARIABLE, str(folder))
    with pytest.raises(ConfigError, match="another user"):
        prepare_multiprocess()
    assert list(folder.iterdir()) == []


def test_what_others_put_beside_it_is_neither_opened_nor_removed(shared: Path) -> None:
    target = shared / "target"
    target.mkdir()
    (target / "lock").touch()
    (shared / "tide-relay-metrics-link").symlink_to(target)
    theirs = shared / "tide-relay-metrics-theirs"
    theirs.mkdir()
    (theirs / "lock").touch()
    os.chown(theirs, ANOTHER, ANOTHER)
    ours = shared / "tide-relay-metrics-ours"
    ours.mkdir()
    (ours / "lock").symlink_to(target / "lock")
    abandoned = shared / "tide-relay-metrics-abandoned"
    abandoned.mkdir()
    (abandoned / "lock").touch()
    folder = prepare_multiprocess()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (target / "lock").exists() and (theirs / "lock").exists() and (ours / "lock").is_symlink()
    assert not abandoned.exists()
