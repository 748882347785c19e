"""The workflows of CI and releases: pinned actions, least rights, and no command that the project does not have."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")


def read(path: Path) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as a boolean.
    content = yaml.safe_load(path.read_text("utf-8"))
    return {"on" if key is True else key: value for key, value in content.items()}


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_are_workflows() -> None:
    assert {path.stem for path in FILES} == {"ci", "release"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_action_is_pinned_by_hash_and_names_its_version(path: Path) -> None:
    used = [step["uses"] for step in steps(read(path)) if "uses" in step]
    assert used
    assert [action for action in used if not PINNED.fullmatch(action)] == []
    assert path.read_text("utf-8").count("uses:") == len(re.findall(r"uses: \S+ # v\d", path.read_text("utf-8")))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_job_may_only_read_unless_it_says_otherwise_and_ends_in_time(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in workflow["jobs"].items() if "timeout-minutes" not in job] == []
    checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
    assert [step for step in checkouts if step["with"]["persist-credentials"] is not False] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_verb_that_they_call_exists(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    verbs = {verb for step in steps(read(path)) for verb in re.findall(r"\bmake ([\w-]+)", step.get("run", ""))}
    assert verbs
    assert [
        verb for verb in sorted(verbs) if not re.search(rf"^[\w -]*\b{verb}\b[\w -]*:", makefile, re.MULTILINE)
    ] == []


def test_publishing_stores_no_token() -> None:
    release = read(ROOT / ".github/workflows/release.yml")
    assert release["jobs"]["pypi"]["permissions"] == {"id-token": "write"}
    secrets = set(re.findall(r"secrets\.(\w+)", (ROOT / ".github/workflows/release.yml").read_text("utf-8")))
    assert secrets == {"GITHUB_TOKEN"}
