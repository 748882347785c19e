"""The figures of README's section on speed are those of benchmarks/results.md, which can be gathered in pieces."""

import sys
from pathlib import Path

import pytest

from benchmarks import report, speed
from benchmarks.figures import Figure, at_least
from benchmarks.peers import environments
from benchmarks.peers.environments import Environment
from benchmarks.report import Section


def test_the_readme_says_what_was_measured() -> None:
    """`make speed` writes the tables."""
    assert speed.tables(speed.Results(report.RESULTS.read_text())) in speed.README.read_text()


def test_a_figure_that_was_not_measured_is_named() -> None:
    with pytest.raises(ValueError, match=r"results.md has no 'outbox -> ether' in 'kafka'"):
        speed.Results("").rate("kafka", "outbox -> ether")


def measured(rate: int, at: str) -> Section:
    note = f"ours {rate:,}/s (1 to 2), bare loop 3/s (3 to 3)"
    return Section([at_least("outbox -> sink", 0.7, 0.6, note), Figure("other", "1 ms")], at, 12.3, quick=False)


def test_results_gathered_in_pieces_keep_what_was_not_measured_again(tmp_path: Path) -> None:
    path, order = tmp_path / "results.md", ["first", "second", "third"]
    report.write({"third": measured(3, "on Monday")}, ["an old machine"], order, path)
    report.write({"first": measured(12_345, "on Monday")}, ["an old machine"], order, path)
    before = path.read_text()
    report.write({"third": measured(232_232, "on Tuesday")}, ["a new machine"], order, path)

    text = path.read_text()
    found, old = report.sections(text), report.sections(before)
    assert list(found) == ["first", "third"]
    assert found["first"] == old["first"]
    assert found["third"][0].startswith("on Tuesday, tide-relay ")
    assert found["third"][0].endswith(", full rounds, 12 seconds.")
    assert "a new machine" in text
    assert "an old machine" not in text
    results = speed.Results(text)
    assert results.measured("third", "outbox -> sink") == "0.70"
    assert [results.rate(name, "outbox -> sink") for name in found] == ["12,000", "232,000"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an environment whose pins have not changed since."""
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(environments, "PROGRAMS", tmp_path)
    folder = tmp_path / "peer"
    (folder / "bin").mkdir(parents=True)
    for pins in (tmp_path / "peer.txt", folder / "installed.txt"):
        pins.write_text("peer==1.0\n")
    return folder


def test_a_peer_that_is_there_is_not_missing(installed: Path) -> None:
    (installed / "bin" / "python").symlink_to(sys.executable)
    assert Environment("peer", "import json").missing() == ""


def test_a_peer_that_cannot_be_used_says_why(installed: Path) -> None:
    (installed / "bin" / "python").symlink_to(sys.executable)
    assert Environment("peer", "import peer").missing() == "ModuleNotFoundError: No module named 'peer'"


def test_a_peer_that_cannot_be_installed_says_why(installed: Path) -> None:
    (installed / "installed.txt").unlink()
    (installed.parent / "peer.txt").unlink()
    assert "peer.txt" in Environment("peer", "import peer").missing()
