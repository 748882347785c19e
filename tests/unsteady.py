"""A pytest plugin: a test that fails runs once more after all others, alone, in a process of its own.

If it passes then, the run is green, and the closing lines name the test as unsteady, with both outcomes. If it fails
again, the run is red. An unsteady test is still a bug. `make test` turns the plugin on with `-p tests.unsteady`.

The run stays red without a second try if something other than a test failed (a collection, the session itself), if it
was to stop at a failure (`-x`), or if over `MOST_AGAIN` tests failed. Under this plugin it is also red if no test ran
at all, or if one that was collected never ran, which is what pytest-xdist leaves behind when it runs out of workers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

MOST_AGAIN = 100


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes-to", metavar="FILE", help=argparse.SUPPRESS)


def pytest_configure(config: pytest.Config) -> None:
    if file := config.getoption("--outcomes-to"):
        config.pluginmanager.register(Recorder(Path(file)), "unsteady-recorder")
    elif not hasattr(config, "workerinput"):
        config.pluginmanager.register(Judge(config), "unsteady-judge")


@dataclass
class Outcome:
    """What became of one test: the phases that passed, and for each other one a line and the whole text."""

    passed: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    finished: bool = False

    def add(self, phase: str, outcome: str, text: str) -> None:
        if outcome == "passed":
            self.passed.append(phase)
        else:
            reason = next((line[1:].strip() for line in text.splitlines() if line.startswith("E ")), text[-200:])
            self.failures.append((f"{outcome} in {phase}: {' '.join(reason.split())}", text))
        self.finished = phase == "teardown"

    @property
    def good(self) -> bool:
        return self.finished and "call" in self.passed and not self.failures

    def __str__(self) -> str:
        return "passed" if self.good else "; ".join(line for line, _ in self.failures)


class Judge:
    """Belongs to the process that the person started: with pytest-xdist the one that controls the others."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._ran: set[str] = set()
        self._failed: dict[str, list[pytest.TestReport]] = {}
        self._first: dict[str, Outcome] = {}
        self._second: dict[str, Outcome] = {}
        self._other_failure = False
        self._remarks: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.setdefault(report.nodeid, []).append(report)
            self._first.setdefault(report.nodeid, Outcome()).add(str(report.when), report.outcome, text_of(report))
        if report.when != "setup" or not report.passed:
            self._ran.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._other_failure |= report.failed

    def pytest_internalerror(self) -> None:
        self._other_failure = True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._config.option.collectonly or exitstatus not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            return
        if self._failed and self._worth_a_second_try(session):
            self._try_again()
        session.exitstatus = self._verdict(session, exitstatus)

    def _worth_a_second_try(self, session: pytest.Session) -> bool:
        if len(self._failed) > MOST_AGAIN:
            self._remarks.append(f"Over {MOST_AGAIN} tests failed: none of them ran again.")
            return False
        return not (self._other_failure or session.shouldfail or session.shouldstop)

    def _try_again(self) -> None:
        self._reporter.ensure_newline()
        self._reporter.write_sep("-", f"{len(self._failed)} failed: once more, alone")
        self._second = run_again(self._config, list(self._failed))
        for nodeid, reports in self._failed.items():
            if self._second[nodeid].good:
                self._count_as_unsteady(nodeid, reports[0])

    def _count_as_unsteady(self, nodeid: str, report: pytest.TestReport) -> None:
        """The closing line counts a test once: one that passed and then failed in its teardown was both so far."""
        stats = self._reporter.stats
        for kind in ("failed", "error", "passed"):
            stats[kind] = [r for r in stats.get(kind, []) if r.nodeid != nodeid]
            if not stats[kind]:
                del stats[kind]
        stats.setdefault("unsteady", []).append(report)

    def _verdict(self, session: pytest.Session, exitstatus: int) -> int:
        missing = session.testscollected - len(self._ran)
        if missing > 0 and not (session.shouldfail or session.shouldstop):
            self._remarks.append(f"{missing} collected tests never ran.")
            return pytest.ExitCode.TESTS_FAILED
        if not any(self._reporter.stats.get(kind) for kind in ("passed", "failed", "error", "unsteady", "xfailed")):
            self._remarks.append("No test ran.")
            return pytest.ExitCode.NO_TESTS_COLLECTED
        steady = self._second and all(outcome.good for outcome in self._second.values())
        return pytest.ExitCode.OK if steady else exitstatus

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self) -> Iterator[None]:
        """The texts stand among those of the failures; the lines come last, right before pytest's closing line."""
        for nodeid, outcome in self._second.items():
            texts = [] if not outcome.good else [text for _, text in self._first[nodeid].failures]
            texts += [text for _, text in outcome.failures]
            self._reporter.write_sep("_", f"{nodeid}, {'unsteady' if outcome.good else 'again, alone'}")
            self._reporter.write_line("\n".join(texts))
        yield
        if self._second:
            self._reporter.write_sep("=", "failed, and once more alone")
        for nodeid, outcome in self._second.items():
            title = "UNSTEADY" if outcome.good else "FAILED TWICE"
            self._reporter.write_line(f"{title} {nodeid} - first {self._first[nodeid]}; then {outcome}")
        for remark in self._remarks:
            self._reporter.write_line(remark, red=True)

    @property
    def _reporter(self) -> Any:
        return self._config.pluginmanager.getplugin("terminalreporter")


class Recorder:
    """Belongs to the process of a second try: writes down what happens, so that a crash loses one outcome only."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(nodeid, "start", "passed", "")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._write(report.nodeid, report.when, report.outcome, "" if report.passed else text_of(report))

    def _write(self, nodeid: str, phase: str | None, outcome: str, text: str) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps([nodeid, phase, outcome, text]) + "\n")


def run_again(config: pytest.Config, nodeids: Sequence[str]) -> dict[str, Outcome]:
    """One after the other in a new process; after one that ends the process, the others in another."""
    outcomes: dict[str, Outcome] = {}
    waiting = {without_group(nodeid): nodeid for nodeid in nodeids}
    while waiting:
        for plain, outcome in _run_process(config, list(waiting)).items():
            outcomes[waiting.pop(plain)] = outcome
    return outcomes


def _run_process(config: pytest.Config, nodeids: Sequence[str]) -> dict[str, Outcome]:
    with tempfile.TemporaryDirectory(prefix="tide-again-") as folder:
        file = Path(folder) / "outcomes"
        file.touch()
        command = [sys.executable, "-m", "pytest", "-p", __name__, f"--outcomes-to={file}", "-p", "no:cacheprovider"]
        command += ["--rootdir", str(config.rootpath)]
        command += ["-c", str(config.inipath)] if config.inipath else []
        command += ["-n0"] if config.pluginmanager.hasplugin("xdist") else []
        done = subprocess.run(
            [*command, *nodeids], cwd=config.rootpath, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
        )
        seen: dict[str, Outcome] = {}
        for line in file.read_text().splitlines():
            nodeid, phase, outcome, text = json.loads(line)
            seen.setdefault(nodeid, Outcome()).add(phase, outcome, text)
    # If the process could not begin with one of them, no other process will.
    seen = {nodeid: seen[nodeid] for nodeid in nodeids if nodeid in seen} or {nodeid: Outcome() for nodeid in nodeids}
    for outcome in seen.values():
        if not outcome.finished:
            outcome.failures.append((f"its process ended with exit status {done.returncode}", done.stdout.decode()))
    return seen


def without_group(nodeid: str) -> str:
    """Under `--dist loadgroup` pytest-xdist adds the group: `test_file.py::test_name[parameter]@group`."""
    at = nodeid.rfind("@")
    return nodeid[:at] if at > max(nodeid.rfind("]"), nodeid.find("::")) > 0 else nodeid


def text_of(report: pytest.TestReport) -> str:
    return "\n".join([report.longreprtext, *(f"--- {title} ---\n{content}" for title, content in report.sections)])
