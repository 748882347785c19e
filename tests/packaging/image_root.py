"""A folder as the root of programs, as in a container: they see its files and, read-only, those of the system.

Stands in for a container engine, of which there is none where the tests run. Made of Linux namespaces and chroot; the
network is the machine's. In place of the base image there are this machine's /usr, /etc and Python.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.services.unavailable import unavailable

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE_PATH = f"{sys.base_prefix}/bin:{SYSTEM_PATH}"
# What a build needs of this machine to reach the package index, and nothing else of its environment.
_NETWORK = ("PROXY", "SSL_CERT", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS")


def network_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if any(part in name.upper() for part in _NETWORK)}


class ImageRoot:
    """The files of one stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("app", "dev", "etc", "proc", "root", "tmp", "usr"):
            (folder / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (folder / name).symlink_to(f"usr/{name}")
        folder.chmod(0o755)
        (folder / "tmp").chmod(0o1777)
        self._system = [Path("/usr"), Path("/etc"), *_apart_of_system()]
        for path in self._system:
            target = self.at(str(path))
            target.mkdir(parents=True, exist_ok=True) if path.is_dir() else target.parent.mkdir(parents=True)

    def at(self, path: str) -> Path:
        """Where a path of the programs is outside."""
        return self.folder / path.lstrip("/")

    def command(
        self, command: Sequence[str], *, cwd: str = "/app", user: str = "0:0", read_only: bool = False,
        writable: Mapping[Path, str] | None = None,
    ) -> list[str]:  # fmt: skip
        """What runs `command` in this root. `writable` are folders of this machine, and where they are seen."""
        _needs_namespaces()
        inner = ["chroot", str(self.folder), *_as_user(user), "env", f"--chdir={cwd}", *command]
        steps = self._mounts(read_only, writable or {})
        as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        return ["unshare", *as_root, "--mount", "sh", "-euc", "\n".join([*steps, f"exec {shlex.join(inner)}"])]

    def _mounts(self, read_only: bool, writable: Mapping[Path, str]) -> list[str]:
        quoted = shlex.quote(str(self.folder))
        lock = f"mount --options remount,bind,{'ro' if read_only else 'rw'}"
        steps = [f"mount --bind {quoted} {quoted}", *(_bind(path, self.at(str(path)), "ro") for path in self._system)]
        steps += [f"mount --rbind {path} {shlex.quote(str(self.at(path)))}" for path in ("/dev", "/proc")]
        for folder, seen_as in {self.at("/tmp"): "/tmp", **writable}.items():
            self.at(seen_as).mkdir(parents=True, exist_ok=True)
            steps.append(_bind(folder, self.at(seen_as), "rw"))
        return [*steps, f"{lock} {quoted}"]

    def run(self, command: Sequence[str], environment: Mapping[str, str], timeout: float = 300, **options: Any) -> str:
        """The output of a command that must succeed."""
        done = subprocess.run(
            self.command(command, **options), env=dict(environment), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout


def _bind(source: Path, target: Path, mode: str) -> str:
    touch = "" if source.is_dir() else f"touch {shlex.quote(str(target))}; "
    where = f"{shlex.quote(str(source))} {shlex.quote(str(target))}"
    return f"{touch}mount --bind {where}; mount --options remount,bind,{mode} {shlex.quote(str(target))}"


def _apart_of_system() -> list[Path]:
    """What belongs to the system and lies elsewhere: a separate Python, the resolver's file behind a link."""
    resolver = Path("/etc/resolv.conf").resolve()
    candidates = [Path(sys.base_prefix), *([resolver] if resolver.exists() else [])]
    return [path for path in candidates if not path.is_relative_to("/usr") and not path.is_relative_to("/etc")]


def _as_user(user: str) -> list[str]:
    # Without root there is one user in the namespace; outside of it that one is no root either.
    if os.geteuid() != 0 or user == "0:0":
        return []
    uid, gid = user.split(":")
    return [
        "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs",
        "--inh-caps=-all", "--bounding-set=-all",
    ]  # fmt: skip


def _needs_namespaces() -> None:
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run(["unshare", *as_root, "--mount", "true"], check=False).returncode:
        unavailable("no mount namespaces here (Linux, util-linux, and root or user namespaces)")
