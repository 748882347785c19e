"""Where `relay up` leaves the URLs of what it runs, so that the verbs started in the same folder find them.

Lines of `export NAME='value'`, for shells too. The file is ours to read and nobody else's (mode 600), because the URLs
hold passwords. It is only believed if it belongs to the user that reads it: a file that somebody else left in a shared
folder must not lead a verb to a database of theirs.
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
    """Replaces the file of that folder at once: a reader sees the old or the new one whole."""
    path, new = folder / NAME, folder / f"{NAME}.new"
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join(exports(values)) + "\n")
    new.rename(path)
    return path


def remove(folder: Path) -> None:
    (folder / NAME).unlink(missing_ok=True)


def read(path: Path = DEFAULT) -> dict[str, str]:
    """The settings in the file by field name; empty if there is none. Raises ConfigError for one that is not ours."""
    try:
        with path.open() as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise ConfigError(f"{path} is not used: it must be yours, and of mode 600; else give --postgres-url")
            words = shlex.split(file.read(), comments=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; give --postgres-url") from error
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    return {field: pairs[variables(field)[0]] for field in FIELDS if variables(field)[0] in pairs}
