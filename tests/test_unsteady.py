"""What fails runs once more, alone: `tests/unsteady.py`, on small suites of its own."""

from collections.abc import Callable

import pytest

from tests.paths import ROOT
from tests.unsteady import without_group

pytest_plugins = ["pytester"]

# `fails(n)` fails the first n times that it is called, in whatever process.
HELPER = """
import os, pytest
from pathlib import Path

def fails(times, how=lambda: pytest.fail("on purpose"), name="count"):
    counter = Path(__file__).with_name(name)
    count = len(counter.read_text()) if counter.exists() else 0
    counter.write_text("x" * (count + 1))
    if count < times:
        how()

def test_good(): pass
"""
# As many processes as pieces of work: with more for one, pytest-xdist 3.8 hangs when the last process crashes.
XDIST = ("-n", "3", "--dist", "loadgroup")

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # What this run sets for its own processes.
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)
    # The others cost time in each process.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "xdist.plugin")

    def run_suite(tests: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(HELPER + tests)
        return pytester.runpytest_subprocess("-p", "tests.unsteady", *options)

    return run_suite


@pytest.mark.parametrize("processes", [(), XDIST], ids=["one process", "xdist"])
def test_one_failure_is_green_and_listed_with_both_outcomes(run: Run, processes: tuple[str, ...]) -> None:
    result = run("def test_unsteady(): fails(1)", *processes)
    assert result.ret == 0
    line = "UNSTEADY *::test_unsteady - first failed in call: Failed: on purpose; then passed"
    result.stdout.fnmatch_lines(["*1 failed: once more, alone*", "E * Failed: on purpose", line])
    assert "1 passed, 1 unsteady in" in result.outlines[-1]


@pytest.mark.parametrize("processes", [(), XDIST], ids=["one process", "xdist"])
def test_two_failures_are_red(run: Run, processes: tuple[str, ...]) -> None:
    result = run("def test_wrong(): fails(2)\ndef test_unsteady(): fails(1, name='other')", *processes)
    assert result.ret == 1
    result.stdout.fnmatch_lines_random(
        ["FAILED TWICE *::test_wrong - first failed *; then failed *", "UNSTEADY *::test_unsteady *"]
    )
    assert "1 failed, 1 passed, 1 unsteady in" in result.outlines[-1]


@pytest.mark.parametrize(("times", "status"), [(1, 0), (2, 1)])
def test_a_failure_of_a_fixture_counts(run: Run, times: int, status: int) -> None:
    result = run(
        f"@pytest.fixture\ndef start(): fails({times})\ndef test_start(start): pass\n"
        f"@pytest.fixture\ndef stop(): yield; fails({times}, name='stop')\ndef test_stop(stop): pass\n"
    )
    assert result.ret == status
    assert ("2 passed, 2 errors in" if status else "1 passed, 2 unsteady in") in result.outlines[-1]


def test_a_test_that_skips_itself_the_second_time_has_not_passed(run: Run) -> None:
    result = run("def test_it():\n    fails(1)\n    pytest.skip('no more')")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FAILED TWICE *::test_it *; then skipped in call: *"])


@pytest.mark.parametrize("again", [False, True])
def test_a_crash_of_a_process_counts_as_a_failure(run: Run, again: bool) -> None:
    """And the tests that were to run after it in the same process do run."""
    result = run(
        f"def test_crash():\n    fails(1, lambda: os._exit(1))\n"
        f"    if {again} and 'PYTEST_XDIST_WORKER' not in os.environ: os._exit(1)\n"
        "@pytest.mark.parametrize('value', ['a b', 'x@y', '[::]'])\n"
        "@pytest.mark.xdist_group('one')\n"
        "def test_unsteady(value): fails(1, name=value)",
        *XDIST,
    )
    assert result.ret == again
    title = "FAILED TWICE" if again else "UNSTEADY"
    result.stdout.fnmatch_lines_random([f"{title} *::test_crash - first *crashed*", "UNSTEADY *x@y*"])
    assert f"{3 if again else 4} unsteady in" in result.outlines[-1]


def test_tests_that_no_process_was_left_to_run_are_a_failure(run: Run) -> None:
    crashes = "".join(f"def test_{n}(): fails(1, lambda: os._exit(1), '{n}')\n" for n in range(9))
    result = run(crashes, *XDIST, "--max-worker-restart", "1")
    assert result.ret in {pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERNAL_ERROR}
    # The run itself ends in an error if tests are handed to a process in the moment in which it dies.
    if result.ret == pytest.ExitCode.TESTS_FAILED:
        result.stdout.fnmatch_lines(["UNSTEADY *", "* collected tests never ran."])


@pytest.mark.parametrize("tests", ["", "def test_skipped(): pytest.skip('no')"], ids=["none", "skipped"])
def test_a_run_of_no_tests_is_a_failure(run: Run, tests: str) -> None:
    assert run(tests, "--deselect", "::test_good", "-k", "not good").ret == 5


@pytest.mark.parametrize(
    ("tests", "options"),
    [
        ("def test_it(): fails(1)", ["-x"]),
        ("def test_it(): fails(1)\nfails(9, name='collection')", ["--continue-on-collection-errors"]),
        ("@pytest.mark.parametrize('n', range(101))\ndef test_it(n): fails(1, name=str(n))", []),
    ],
    ids=["-x", "collection", "over a hundred"],
)
def test_what_has_no_second_try(run: Run, tests: str, options: list[str]) -> None:
    result = run(tests, *options)
    assert result.ret in {1, 2}
    assert "once more" not in result.stdout.str()


@pytest.mark.parametrize(
    ("nodeid", "plain"),
    [
        ("a.py::test_it@group", "a.py::test_it"),
        ("a.py::test_it[x@y]", "a.py::test_it[x@y]"),
        ("a.py::test_it[x@y]@group", "a.py::test_it[x@y]"),
        ("a@b/c.py::test_it", "a@b/c.py::test_it"),
    ],
)
def test_a_name_without_its_group(nodeid: str, plain: str) -> None:
    assert without_group(nodeid) == plain
