"""Where `relay up` writes the URLs of what it runs, so that the verbs started in the same folder find them.

Lines of `export NAME='value'`, for shells too. Only its owner can read the file (mode 600), because the URLs hold
passwords. It is used only if it belongs to the user that reads it: a file that another user left in a shared folder
must not lead a verb to another database.
"""

import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

from relay.errors import ConfigError
from relay.settings import variables

NAME = "env"
DEFAULT_FOLDER = Path("tide-data")
DEFAULT = DEFAULT_FOLDER / NAME
FIELDS = ("postgres_url", "broker_url")


def exports(values: Mapping[str, str]) -> list[str]:
    """The lines for a shell, by setting."""
    return [f"export {variables(field)[0]}={shlex.quote(value)}" for field, value in values.items()]


def write(folder: Path, values: Mapping[str, str]) -> Path:
    """Replaces the file of that folder atomically: a reader sees the old one or the new one."""
    path, new = folder / NAME, folder / f"{NAME}.new"
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join(exports(values)) + "\n")
    new.rename(path)
    return path


def remove(folder: Path) -> None:
    (folder / NAME).unlink(missing_ok=True)


def read(path: Path = DEFAULT) -> dict[str, str]:
    """The settings in the file by field name; empty if there is no file. Raises ConfigError if it is not our own."""
    try:
        with path.open() as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise ConfigError(
                    f"{path} is not used: it must belong to you and have mode 600; or give --postgres-url"
                )
            words = shlex.split(file.read(), comments=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; give --postgres-url") from error
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    return {field: pairs[variables(field)[0]] for field in FIELDS if variables(field)[0] in pairs}
