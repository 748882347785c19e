"""The folder that the processes of one `dramatiq relay.workers` share: their metrics, and signs of life.

Two traps: prometheus_client reads `PROMETHEUS_MULTIPROC_DIR` when it is first imported, and never clears the folder,
so that the numbers of the previous run would come back. A run is known by the authkey of the Dramatiq master, which is
random and inherited by its children, forked or spawned. Without a folder from outside, its name comes from that key;
a folder that was given is cleared by the first process of a run. Every process holds a shared lock on its folder: one
that another run still holds is not touched, and one of ours that no process holds is removed by the next start.

Nothing here imports prometheus_client.
"""

import fcntl
import hashlib
import logging
import multiprocessing
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from relay.errors import ConfigError

MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_FOLDER_PREFIX = "tide-relay-metrics-"
_LOCK_NAME = "lock"
# What prometheus_client and the workers leave in a folder that was given: nothing else in it is ours to remove.
_LEFT = re.compile(r"(counter|gauge_\w+|histogram|summary)_\d+\.db|alive-\d+(\.new)?")

_log = logging.getLogger(__name__)
# Kept open for the life of the process: closing it would release the lock on the folder.
_held: list[int] = []


def prepare_multiprocess() -> Path:
    """Makes the folder of this run and names it to prometheus_client, which must not have been imported yet.

    A folder that `PROMETHEUS_MULTIPROC_DIR` names is used, and what an earlier run has left there is removed.
    May be called again. Raises ConfigError for a folder of another user.
    """
    given = os.environ.get(MULTIPROC_VARIABLE)
    if given and Path(given) != _run_folder():
        folder = Path(given)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(folder, or_root=True)
        _hold_given(folder)
    else:
        folder = _run_folder()
        _hold(folder)
        _remove_abandoned(folder)
        os.environ[MULTIPROC_VARIABLE] = str(folder)
    return folder


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _run() -> str:
    return hashlib.sha256(multiprocessing.current_process().authkey).hexdigest()[:16]


def _hold_given(folder: Path) -> None:
    """Clears the folder if it belongs to another run, which has ended; holds it in any case.

    The lock's file names the run. The first process of ours finds another name, and no later one does.
    """
    descriptor = _open_lock(folder, os.O_CREAT)
    _held.append(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.pread(descriptor, 64, 0).decode() != _run():
            for path in folder.iterdir():
                if _LEFT.fullmatch(path.name):
                    path.unlink()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _run().encode(), 0)
    except BlockingIOError:
        pass  # a sibling, which does it; or another run, which still needs its numbers
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if os.pread(descriptor, 64, 0).decode() != _run():
        _log.warning(
            "%s is in use by other workers: metrics and health are those of both. Give each its own folder.", folder
        )


def _run_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"{_FOLDER_PREFIX}{_run()}"


def _hold(folder: Path) -> None:
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            _check_owner(folder)
            descriptor = _open_lock(folder, os.O_CREAT)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        # Another process may have removed the folder between the two lines above: then the lock is useless.
        if os.fstat(descriptor).st_nlink:
            _held.append(descriptor)
            return
        os.close(descriptor)


def _remove_abandoned(own: Path) -> None:
    for folder in own.parent.glob(f"{_FOLDER_PREFIX}*"):
        if folder != own:
            _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    try:
        _check_owner(folder)
        descriptor = _open_lock(folder)
    except (OSError, ConfigError):
        return  # of another user, or another process is removing it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass  # in use
    finally:
        os.close(descriptor)


def _check_owner(folder: Path, *, or_root: bool = False) -> None:
    """Raises ConfigError if another user made the folder: anyone may, in a temporary folder that all share.

    With `or_root`, one that root made is good too, as a mounted volume is.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in ({os.geteuid(), 0} if or_root else {os.geteuid()}):
        raise ConfigError(
            f"{folder} belongs to another user, or is a link: remove it, or name another folder in {MULTIPROC_VARIABLE}"
        )


def _open_lock(folder: Path, flags: int = 0) -> int:
    return os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o600)
