"""How `relay status` looks at a given width and height: without a terminal, and without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.text import Text

from relay.cli.status_screen import Watched, screen_lines
from relay.cli.status_view import lines_of
from relay.operations.job_queues import Numbers
from relay.operations.status import Look, Status
from relay.operations.status_facts import COUNT_LIMIT

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
WIDTHS = (20, 40, 80, 100, 119, 120, 160, 220)
REFUSED = "auth: NATS stream 'orders': authorization violation; check user and password, or creds_file, of the pipeline"
NOTHING = "nothing to do"


def status(name: str, state: str = "idle", why: str = NOTHING, **more: Any) -> Status:
    fields: dict[str, Any] = {
        "direction": "forward", "outbox": "o", "consumer_group": name, "sink_type": "nats", "source_type": None,
        "inbox": None, "inbox_dead": None, "owner": "box.example:4711", "offset_id": 1_000_123, "lag_messages": 0,
        "lag_seconds": 0.0, "hold_seconds": None, "delivered": 1_000_000, "dead_letters": 0, "dead_letters_ever": 0,
        "failures": 0,
        "retry_at": None, "retry_seconds": None, "last_error": None, "last_error_code": None, "last_error_at": None,
        "last_drain_at": None, "jobs": None, "lanes": 1, "lane": 0,
    }  # fmt: skip
    return Status(name=name, state=state, why=why, **fields | more)


def failing(name: str, state: str = "retrying", why: str = REFUSED, seconds: float = 12.0, **more: Any) -> Status:
    given = {"failures": 3, "retry_at": NOW, "retry_seconds": seconds, "last_error": why, "last_error_code": "auth"}
    return status(name, state, why, **given | {"lag_messages": 7, "lag_seconds": 90.0} | more)


def queue(name: str, state: str = "idle", why: str = NOTHING, **numbers: Any) -> Status:
    held = {"paused": False, "pending": 0, "due": 0, "scheduled": 0, "leased": 0, "dead": 0}
    jobs = Numbers(queue=name, oldest_due_seconds=0.0, workers=2, concurrency_limit=None, **held | numbers)
    return status(f"jobs.{name}", state, why, direction="jobs", jobs=jobs, outbox=None, sink_type=None)


def text_of(lines: list[Text]) -> list[str]:
    return [line.plain for line in lines]


def looked(*statuses: Status, read_only: str | None = None) -> Watched:
    return Watched(Look(statuses, NOW, read_only), None, NOW)


MANY = (
    failing("orders-out", "broken"), failing("payments", "broken"), failing("支払い", seconds=0.0),
    status("slow", "held", "a transaction of pid 17, user shop, application_name cron, open for 3 min, holds it back",
           lag_messages=12_345, lag_seconds=180.0),
    status("busy", "draining", "a drain holds the lease until 12:00:30.000 UTC"),
    status("with-dead", dead_letters=3), status("off", "disabled", "disabled: relay pipeline enable off"),
    *(status(f"idle-{number:02}") for number in range(12)),
    queue("mail", "running", "2 jobs are leased, 1 is due", leased=2, due=1), queue("reports"),
)  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_and_nothing_is_left_out(width: int) -> None:
    lines = lines_of(MANY, width)
    assert max(line.cell_len for line in lines) <= width
    text = "".join("".join(text_of(lines)).split())
    for shown in (*(s.jobs.queue if s.jobs else s.name for s in MANY), REFUSED, "1000123", "12345", MANY[3].why):
        assert "".join(shown.split()) in text or width < 40 or "/" in shown, shown


def test_below_120_columns_the_reason_stands_below_its_pipeline_and_from_there_on_beside_it() -> None:
    narrow, wide = text_of(lines_of([failing("orders")], 119)), text_of(lines_of([failing("orders")], 120))
    assert "why" not in narrow[0].split() and narrow[1].split()[:2] == ["orders", "retrying"]
    assert narrow[2].startswith("    auth: NATS stream 'orders': authorization violation")
    assert wide[0].split()[-1] == "why" and "auth: NATS" in wide[1]


@pytest.mark.parametrize("width", [80, 160])
def test_what_is_broken_comes_first_then_what_fails_what_lags_what_has_dead_letters_what_is_busy(width: int) -> None:
    names = ["orders-out", "payments", "支払い", "slow", "with-dead", "busy", "idle-00"]
    begins = [line.split()[0] for line in text_of(lines_of(MANY, width)) if not line.startswith(" ") and line]
    assert [name for name in begins if name in names] == names


@pytest.mark.parametrize("width", [80, 160])
def test_a_reason_that_several_share_is_shown_once(width: int) -> None:
    lines = text_of(lines_of([failing("a"), failing("b", seconds=0.4), failing("c")], width))
    assert " ".join(" ".join(lines).split()).count("authorization violation") == 1
    assert ("each of these: auth" in " ".join(lines)) == (width == 80)
    assert ("as a" in " ".join(lines)) == (width == 160)


def test_the_next_try_counts_down() -> None:
    lines = text_of(lines_of([failing("a"), failing("b", why="timeout: slow", seconds=0.0), status("c")], 80))
    assert lines[0].split()[-2:] == ["next", "try"]
    assert [line.split()[-3:] for line in lines if line.startswith("a ")] == [["in", "12", "s"]]
    assert [line.split()[-1] for line in lines if line.startswith("b ")] == ["now"]
    assert "next try" not in text_of(lines_of([status("c")], 80))[0]


def test_a_wide_character_takes_two_columns() -> None:
    [head, row, *_] = lines_of([status("支払い"), status("ab")], 160)
    at = row.plain.index("idle")
    assert Text(row.plain[:at]).cell_len == head.plain.index("state")


def test_dead_letters_beyond_those_that_are_counted_are_not_a_number() -> None:
    assert " 10000+ " in text_of(lines_of([status("a", dead_letters=COUNT_LIMIT)], 160))[1]


# A screen ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("height", [5, 10, 16, 24, 200])
def test_a_screen_is_never_larger_than_it_is(width: int, height: int) -> None:
    lines = screen_lines(looked(*MANY), width, height)
    assert len(lines) <= height
    assert max(line.cell_len for line in lines) <= width


def test_a_screen_that_has_room_shows_everything() -> None:
    assert text_of(screen_lines(looked(*MANY), 80, 200))[-len(lines_of(MANY, 80)) :] == text_of(lines_of(MANY, 80))


def test_a_low_screen_shows_what_is_broken_and_the_idle_in_one_line() -> None:
    lines = text_of(screen_lines(looked(*MANY), 80, 16))
    assert lines[0].startswith("2030-01-31 12:00:00 UTC  2 broken, 1 retrying, 1 held, ")
    assert any(line.startswith("orders-out ") for line in lines) and any(line.startswith("payments ") for line in lines)
    [idle] = [line for line in lines if " idle: " in line]
    assert idle.startswith("13 idle: idle-00, idle-01, ") and idle.endswith(" more")
    assert [line for line in lines if line == "1 disabled: off"]


def test_a_low_screen_says_how_many_more_there_are_and_how_many_of_them_fail() -> None:
    many = [failing(f"p{number}", why=f"timeout: no answer from server {number}") for number in range(9)]
    lines = text_of(screen_lines(looked(*many, status("late", "held", "held up", lag_messages=1)), 80, 12))
    shown = [line.split()[0] for line in lines if line.startswith("p") and line[1].isdigit()]
    assert shown == [f"p{number}" for number in range(len(shown))] and shown
    assert f"{10 - len(shown)} more ({9 - len(shown)} failing): relay status" in lines


def test_many_that_share_a_reason_leave_room_for_another_one() -> None:
    many = [failing(f"p{number:03}") for number in range(300)]
    lines = text_of(screen_lines(looked(*many, failing("z", why="timeout: slow")), 80, 24))
    shown = [line for line in lines if line.startswith("p0")]
    assert shown and f"    {300 - len(shown)} more like these" in lines
    assert any(line.startswith("z ") for line in lines) and "    timeout: slow" in lines
    assert not any(line.endswith(": relay status") for line in lines)


def test_one_long_reason_leaves_room_for_others() -> None:
    many = [failing("a", why="word " * 700), failing("b", why="timeout: slow")]
    lines = text_of(screen_lines(looked(*many), 80, 24))
    assert any(line.startswith("b ") for line in lines)
    assert "    ... all of it: relay status NAME" in lines


def test_without_an_answer_the_screen_says_so_and_keeps_what_it_knew() -> None:
    last = Look([failing("a")], NOW, None)
    lines = text_of(screen_lines(Watched(last, "PostgreSQL: connection refused", NOW + timedelta(seconds=42)), 160, 24))
    assert lines[0].startswith("2030-01-31 12:00:42 UTC  No status now: PostgreSQL: connection refused.")
    assert "as it was 42 s ago" in lines[0] and lines[1].startswith("2030-01-31 12:00:00 UTC  1 retrying")
    assert any(line.startswith("a ") for line in lines)
    assert len(screen_lines(Watched(None, "PostgreSQL: connection refused", NOW), 80, 24)) == 2


def test_a_read_only_server_is_told() -> None:
    lines = text_of(screen_lines(looked(status("a"), read_only="this server is a standby"), 80, 24))
    assert "PostgreSQL is read-only, and nothing moves: this server is a standby" in lines
