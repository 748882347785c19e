"""What pipelines may reach on the machine of the process that runs them: set by its operator, for the whole process.

The configuration of a pipeline comes from the database. Those who may write it do not thereby own this process: its
environment, its files and its identity stay the operator's, who names what of them is for pipelines. The lists are
settings (`relay.settings`), and `Settings.load` puts them into force here. Until then, and in a process that loads no
settings, the defaults hold.

A refusal says nothing about what is outside the lists, not even whether it exists: a path is first judged as text, and
only a path inside a folder of the list is looked at.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from relay.errors import ConfigError

NEVER_VARIABLES = ("RELAY_", "PGTRICKLE_RELAY_")
"""Our own settings, with the URLs of the database and the broker. No list can name them."""
_NEVER_FOLDERS = ("/proc", "/sys")
"""Files of the kernel: among them the environment of every process of this user."""


@dataclass(frozen=True, slots=True)
class Reach:
    """One field for each setting of the same name."""

    secret_variables: tuple[str, ...] = ("TIDE_SECRET_",)
    """Prefixes of the environment variables that `${env:NAME}` may name."""
    secret_folders: tuple[str, ...] = ("/etc/tide-relay/secrets",)
    """Folders of what `${file:PATH}` may name, and of certificates, keys and credentials."""
    sink_folders: tuple[str, ...] = ("/var/lib/tide-relay/out",)
    """Folders that pipelines may write to."""
    source_folders: tuple[str, ...] = ("/var/lib/tide-relay/in",)
    """Folders of files that pipelines may receive from."""
    ambient_credentials: bool = False
    """Whether pipelines may act as this process does where they name no credentials: as a role of its machine, by
    files in its home folder, by variables of a client library."""
    job_http_hosts: tuple[str, ...] = ()
    """Hosts that HTTP jobs may name, such as `api.example.com` and `*.example.com`; none: every host."""


_in_force = Reach()


def put_in_force(reach: Reach) -> None:
    """From now on, in this process."""
    global _in_force  # noqa: PLW0603  of the whole process, as its environment is
    _in_force = reach


def in_force() -> Reach:
    return _in_force


def check_variable(name: str) -> None:
    """Raises ConfigError unless `${env:NAME}` may name this variable."""
    check_not_ours(name)
    prefixes = _in_force.secret_variables
    if not name.startswith(prefixes):
        raise ConfigError(
            f"is refused: only variables that begin with {' or '.join(prefixes) or '(none)'} are for pipelines; "
            "rename it where this process runs, or let its operator add a prefix to RELAY_SECRET_VARIABLES"
        )


def check_not_ours(name: str) -> None:
    """Raises ConfigError for a variable that no operator can permit."""
    if name.upper().startswith(NEVER_VARIABLES):
        raise ConfigError(
            "is refused: variables that begin with RELAY_ are settings of tide-relay and are never resolved; "
            "put the value into a variable of its own, such as TIDE_SECRET_NAME"
        )


def check_secret_file(path: str) -> str:
    """The path without links. Raises ConfigError unless a pipeline may name it for a secret, certificate or key."""
    return _check_inside(path, _in_force.secret_folders, "secrets, certificates and keys", "RELAY_SECRET_FOLDERS")


def check_plain_path(path: str) -> None:
    """Raises ConfigError for a path that no folder of any operator can hold."""
    if not os.path.isabs(path) or "\0" in path or ".." in path.split("/"):
        raise ConfigError(
            "is refused: give an absolute path without '..', inside a folder of RELAY_SECRET_FOLDERS of the workers"
        )


def read_secret_file(path: str, limit_bytes: int) -> bytes:
    """Raises ConfigError, without the path, for one that is refused, cannot be read, or is larger than that."""
    path = check_secret_file(path)
    try:
        # Not blocking, because opening a named pipe without a writer would wait indefinitely.
        descriptor = os.open(path, os.O_NOFOLLOW | os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError("is not a file")
            content = file.read(limit_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"cannot be read: {reason}") from None
    if len(content) > limit_bytes:
        raise ConfigError(f"is larger than {limit_bytes} bytes")
    return content


def check_sink_path(path: str) -> str:
    """The path without links. Raises ConfigError unless a pipeline may write there: to a file, or below a folder."""
    return _check_inside(path, _in_force.sink_folders, "what pipelines write", "RELAY_SINK_FOLDERS")


def check_source_path(path: str) -> str:
    """The path without links. Raises ConfigError unless a pipeline may receive from this file."""
    return _check_inside(path, _in_force.source_folders, "what pipelines receive", "RELAY_SOURCE_FOLDERS")


def check_ambient(what: str) -> None:
    """Raises ConfigError unless pipelines may act as this process does."""
    if not _in_force.ambient_credentials:
        raise ConfigError(
            f"{what}: refused, because pipelines may not use the identity of the machine or container that runs them; "
            "name credentials in the pipeline, or let its operator set RELAY_AMBIENT_CREDENTIALS to true"
        )


def _check_inside(path: str, folders: Sequence[str], what: str, variable: str) -> str:
    """As text first: what is outside is not looked at. Then with all links resolved: one may lead out."""
    inside = [folder for folder in folders if _is_below(path, folder) or _is_below(path, os.path.realpath(folder))]
    plain = "\0" not in path and ".." not in path.split("/")
    real = os.path.realpath(path) if inside and plain else ""
    if any(_is_below(real, os.path.realpath(folder)) for folder in inside) and not _is_kernels(real):
        return real
    raise ConfigError(
        f"is refused: the folders for {what} are {', '.join(folders) or '(none)'}; use a path inside one of them, "
        f"without '..', or let the operator of this process add a folder to {variable}"
    )


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/") and len(path) > len(folder.rstrip("/")) + 1


def _is_kernels(path: str) -> bool:
    return any(_is_below(path, folder) for folder in _NEVER_FOLDERS)
