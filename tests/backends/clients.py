"""What a client library of an older version lacks: the tables of errors know that of uv.lock."""

import tomllib
from functools import cache
from importlib.metadata import version
from types import ModuleType

from relay.backends.common.error_table import ErrorTable
from tests.paths import ROOT


def differences(table: ErrorTable, module: ModuleType, package: str) -> set[str]:
    """The exceptions of the module that the table lacks; and those that only the table has, unless they are of a later
    version of the package."""
    found = table.differences(module)
    return found - table.exceptions.keys() if is_older(package) else found


def is_older(package: str) -> bool:
    """Than the version of uv.lock, as in the environment of the lowest versions."""
    return _numbers(version(package)) < _numbers(_locked()[package])


@cache
def _locked() -> dict[str, str]:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    return {package["name"]: package["version"] for package in lock["package"] if "version" in package}


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
