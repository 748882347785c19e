"""`relay demo`: it ends well, it cleans up, and it would notice if something were not right."""

import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from relay.local.demo.check import Arrivals, judge, percentile
from relay.local.demo.orders import Ledger
from relay.local.demo.receipts import Receipt, judge_receipts
from relay.local.demo.totals import judge_totals
from tests.cli.command import RELAY, environment, run, start
from tests.cli.test_up import children, is_running
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def folder(own_dirs: Callable[[], Path]) -> Path:
    """Where the demo makes its temporary folder."""
    made = own_dirs()
    made.mkdir(parents=True)
    made.parent.chmod(0o755)
    return made


def figures(text: str, name: str) -> list[float]:
    [row] = re.findall(rf"│ {name} +│(.*)│", text)
    return [float(value.replace("ms", "")) for value in row.split("│")]


def test_it_delivers_everything_in_order_and_leaves_nothing(folder: Path) -> None:
    elsewhere = environment(TMPDIR=str(folder), RELAY_POSTGRES_URL="postgresql://unknown@127.0.0.1:1/nowhere")
    done = run("demo", "--events", "400", "--seconds", "2", cwd=folder, env=elsewhere, timeout_seconds=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert figures(done.stdout, "published") == figures(done.stdout, "delivered") == [400, 400]
    for name in ("missing", "out of order", "rolled back but delivered", "altered"):
        assert figures(done.stdout, name) == [0, 0]
    assert all(0 < figure < 10_000 for figure in figures(done.stdout, "p50, commit to delivery"))
    [enqueued], [succeeded], [failed_first] = (
        figures(done.stdout, name) for name in ("enqueued", "succeeded", "after failing twice")
    )
    assert enqueued == succeeded > failed_first > 0
    for name in ("lost", "wrong number of attempts", "undone but there"):
        assert figures(done.stdout, name) == [0]
    for name in ("orders miscounted", "rows unlike the query", "rows not rebuilt from changes"):
        assert figures(done.stdout, name) == [0]
    assert figures(done.stdout, "orders counted") == [400]
    assert figures(done.stdout, "changes delivered")[0] > 1
    assert "  published " in done.stdout and "\x1b" not in done.stdout
    assert list(folder.glob("tide-demo-*")) == []


def test_a_terminal_sees_it_live(folder: Path) -> None:
    master, terminal = pty.openpty()
    command = [str(RELAY), "demo", "--events", "200", "--seconds", "1"]
    env = environment(TMPDIR=str(folder), TERM="xterm-256color")
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                shown.extend(os.read(master, 65536))
            except OSError:
                return

    reader = threading.Thread(target=read)
    with subprocess.Popen(command, cwd=folder, env=env, stdout=terminal, stderr=terminal) as demo:
        os.close(terminal)
        reader.start()
        assert demo.wait(150) == 0
    reader.join(10)
    os.close(master)
    text = shown.decode()
    assert "must never arrive" in text and "on the way" in text and " buys " in text
    assert "All is right" in text


@pytest.mark.parametrize("moment", ["starting PostgreSQL", "starting relay-scheduler", "published"])
def test_ctrl_c_stops_and_removes_everything(folder: Path, moment: str) -> None:
    log = folder / "log"
    with log.open("w") as file:
        env = environment(TMPDIR=str(folder), PYTHONUNBUFFERED="1")
        demo = start("demo", "--events", "100000", "--seconds", "100", cwd=folder, stdout=file, env=env)
    try:
        wait_until(lambda: moment in log.read_text(), 60)
        processes = children(demo.pid)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 130, log.read_text()
    finally:
        demo.kill()
        demo.wait(10)
    assert not [pid for pid in processes if is_running(pid)]
    assert list(folder.glob("tide-demo-*")) == []
    assert "interrupted; everything is stopped and removed" in log.read_text()


def test_a_process_that_dies_ends_it_with_its_log(folder: Path) -> None:
    log = folder / "log"
    with log.open("w") as file:
        env = environment(TMPDIR=str(folder), PYTHONUNBUFFERED="1")
        demo = start("demo", "--events", "100000", "--seconds", "100", cwd=folder, stdout=file, env=env)
    try:
        wait_until(lambda: "published" in log.read_text(), 60)
        [scheduler] = [p for p in children(demo.pid) if b"scheduler.cli" in Path(f"/proc/{p}/cmdline").read_bytes()]
        os.kill(scheduler, signal.SIGKILL)
        assert demo.wait(60) == 1
    finally:
        demo.kill()
        demo.wait(10)
    text = log.read_text()
    assert "relay-scheduler ended with exit code -9" in text and "the end of scheduler.log" in text
    assert list(folder.glob("tide-demo-*")) == []


# The judge must bite ---------------------------------------------------------------------------------------------


@pytest.fixture
def ledger() -> Ledger:
    """Ids 1, 2 and 4 were committed, 3 was rolled back."""
    made = Ledger()
    made.commit({1: 101, 2: 102, 4: 104}, at=time.monotonic())
    made.roll_back({3: 103})
    return made


def arrivals(*lines: tuple[int, int]) -> Arrivals:
    made = Arrivals("p")
    for message_id, number in lines:
        made.arrived(b'{"message_id": %d, "payload": {"order": %d}}\n' % (message_id, number))
    return made


def test_all_of_them_in_order_is_right(ledger: Ledger) -> None:
    verdict = judge(ledger, arrivals((1, 101), (2, 102), (4, 104)))
    assert verdict.right
    assert (verdict.published, verdict.delivered, verdict.rolled_back) == (3, 3, 1)


def test_a_run_that_comes_again_is_right_and_counted(ledger: Ledger) -> None:
    verdict = judge(ledger, arrivals((1, 101), (2, 102), (1, 101), (2, 102), (4, 104)))
    assert verdict.right
    assert (verdict.duplicates, verdict.out_of_order) == (2, 0)


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ([(1, 101), (2, 102)], "missing"),
        ([(1, 101), (4, 104), (2, 102)], "out_of_order"),
        ([(1, 101), (2, 102), (3, 103), (4, 104)], "uncommitted"),
        ([(1, 101), (2, 102), (4, 999)], "altered"),
    ],
)
def test_anything_else_is_not(ledger: Ledger, lines: list[tuple[int, int]], wrong: str) -> None:
    verdict = judge(ledger, arrivals(*lines))
    assert not verdict.right
    assert getattr(verdict, wrong) == 1


def test_a_line_that_cannot_be_read_is_not_right(ledger: Ledger) -> None:
    torn = arrivals((1, 101), (2, 102), (4, 104))
    torn.arrived(b'{"message_id": 4, "pay')
    assert not judge(ledger, torn).right


def test_nothing_at_all_is_not_right() -> None:
    assert not judge(Ledger(), arrivals()).right


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)])
def test_percentiles_are_of_the_nearest_rank(share: float, expected: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == expected


def test_the_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 0.5) == 0.0


def test_a_job_that_is_lost_or_undone_or_ran_too_often_is_noticed() -> None:
    ledger = Ledger()
    ledger.commit({1: 5, 2: 25, 3: 7}, at=1.0)
    ledger.roll_back({4: 10})
    right = {"order:5": Receipt("order:5", "succeeded", 1), "order:25": Receipt("order:25", "succeeded", 3)}
    verdict = judge_receipts(ledger, right)
    assert verdict.right and (verdict.enqueued, verdict.rolled_back, verdict.failing_first) == (2, 1, 1)
    assert judge_receipts(ledger, right | {"order:10": Receipt("order:10", "succeeded", 1)}).uncommitted == 1
    assert judge_receipts(ledger, right | {"order:5": Receipt("order:5", "dead_letter", 1)}).missing == 1
    assert judge_receipts(ledger, right | {"order:25": Receipt("order:25", "succeeded", 1)}).wrong_attempts == 1
    assert not judge_receipts(Ledger(), {}).right


def change(message_id: int, inserted: list[tuple[str, int, str]], deleted: list[tuple[str, int, str]]) -> str:
    """A line as the file has it."""

    def rows(given: list[tuple[str, int, str]]) -> str:
        return ", ".join(f'{{"customer": "{c}", "orders": {n}, "total": {total}}}' for c, n, total in given)

    payload = f'{{"inserted": [{rows(inserted)}], "deleted": [{rows(deleted)}]}}'
    return f'{{"message_id": {message_id}, "payload": {payload}}}\n'


def test_a_stream_table_that_is_wrong_or_was_delivered_wrongly_is_noticed(ledger: Ledger) -> None:
    ada, ada_before, bo = ("Ada", 2, Decimal("3.50")), ("Ada", 1, Decimal("1.25")), ("Bo", 1, Decimal(2))
    table = Counter([ada, bo])
    first = change(7, [("Ada", 1, "1.25"), ("Bo", 1, "2")], [])
    second = change(9, [("Ada", 2, "3.50")], [("Ada", 1, "1.25")])
    verdict = judge_totals(ledger, table, table, [first, second, first])
    assert verdict.right and (verdict.orders, verdict.rows, verdict.changes) == (3, 2, 2)
    assert judge_totals(ledger, table, Counter([ada_before, bo]), [first, second]).different == 2
    assert judge_totals(ledger, table, table, [first]).not_rebuilt == 2
    assert judge_totals(ledger, Counter([ada]), Counter([ada]), [first, second]).uncounted == 1
    assert not judge_totals(Ledger(), Counter(), Counter(), []).right
