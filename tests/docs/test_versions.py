"""docs/reference/versions.md: the lowest versions are those of pyproject.toml, and the tests run on what it names."""

import re
import tomllib

from relay.operations.doctor.database import NEWEST_VERSION, OLDEST_VERSION
from tests.paths import ROOT

PAGE = (ROOT / "docs/reference/versions.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NOT_FOR_USERS = {"all", "dev"}


def lowest(requirements: list[str]) -> set[tuple[str, str]]:
    found = [re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+).*", requirement) for requirement in requirements]
    assert all(found), "each has a lower bound"
    return {(match[1], match[2]) for match in found}


def test_each_lower_bound_is_on_the_page_and_no_other() -> None:
    extras = {
        f"`{name}`": lowest(of) for name, of in PROJECT["optional-dependencies"].items() if name not in NOT_FOR_USERS
    }
    rows = dict(re.findall(r"^\| (\S+) \| ([\w-]+ \d.*) \|$", PAGE, re.MULTILINE))
    shown = {name: {tuple(package.split()) for package in packages.split(", ")} for name, packages in rows.items()}
    assert shown == {"(none)": lowest(PROJECT["dependencies"])} | extras


def test_the_tests_install_each_postgresql_that_it_names() -> None:
    first, last = re.search(r"^\| PostgreSQL \| (\d+) to (\d+)", PAGE, re.MULTILINE).groups()
    installed = re.search(r'^all="(.*)"$', (ROOT / "tests/services/install-postgres").read_text(), re.MULTILINE)[1]
    assert installed.split() == [str(version) for version in range(int(first), int(last) + 1)]
    assert (int(first), int(last)) == (OLDEST_VERSION, NEWEST_VERSION), "so does relay doctor"
    assert f"PostgreSQL {first} to {last}" in (ROOT / "docs/reference/sql.md").read_text("utf-8")
