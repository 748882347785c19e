"""How `relay demo` looks while it runs: a live view at a terminal, plain lines elsewhere, a table at the end."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from relay.local.demo.check import Arrivals, Verdict, recent_p50_ms
from relay.local.demo.orders import Budget, Ledger
from relay.local.demo.receipts import QUEUE, ReceiptVerdict
from relay.local.demo.totals import TABLE, TotalsVerdict

BARS = " ▁▂▃▄▅▆▇█"
SAMPLE_SECONDS = 0.25
PLAIN_SECONDS = 1.0
COLOURS = ("cyan", "magenta")


@dataclass(slots=True)
class View:
    """Shows ledger and arrivals. Call `refresh` often: it limits how often it draws."""

    console: Console
    budget: Budget
    ledger: Ledger
    arrivals: Sequence[Arrivals]
    _live: Live | None = None
    _next_at: float = 0.0
    _counts: list[deque[int]] = field(default_factory=list)

    def __enter__(self) -> "View":
        self._counts = [deque([0], maxlen=34) for _ in self.arrivals]
        if self.console.is_terminal:
            self._live = Live(self._picture(), console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        else:
            self.console.print(self._line())

    def refresh(self) -> None:
        now = time.monotonic()
        if now < self._next_at:
            return
        if self._live:
            self._next_at = now + SAMPLE_SECONDS
            for counts, arrivals in zip(self._counts, self.arrivals, strict=True):
                counts.append(len(arrivals.first))
            self._live.update(self._picture(), refresh=True)
        else:
            self._next_at = now + PLAIN_SECONDS
            self.console.print(self._line())

    def _line(self) -> str:
        parts = [
            f"{arrivals.pipeline} {len(arrivals.first):>6} (p50 {recent_p50_ms(self.ledger, arrivals):.1f} ms)"
            for arrivals in self.arrivals
        ]
        seconds = time.monotonic() - self.budget.begun_at
        published, rolled_back = len(self.ledger.committed), len(self.ledger.rolled_back)
        return f"{seconds:5.1f} s  published {published:>6}, rolled back {rolled_back:>4}, {', '.join(parts)}"

    def _picture(self) -> RenderableType:
        published, rolled_back = len(self.ledger.committed), len(self.ledger.rolled_back)
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=self.budget.events, completed=published, width=40)
        head.add_row(Text("committed", style="bold"), bar, f"{published} of {self.budget.events}")
        head.add_row(Text("rolled back", style="dim"), Text("must never arrive", style="dim"), f"{rolled_back}")
        body = Table.grid(padding=(0, 2))
        for arrivals, counts, colour in zip(self.arrivals, self._counts, COLOURS, strict=True):
            waiting = max(0, published - len(arrivals.first))
            body.add_row(
                Text(arrivals.pipeline, style=f"bold {colour}"),
                Text(sparkline(counts), style=colour),
                f"{len(arrivals.first)} delivered",
                f"{waiting} on the way",
                f"p50 {recent_p50_ms(self.ledger, arrivals):.1f} ms",
            )
        return Group("", head, "", body, "", *[_order(order) for order in list(self.arrivals[-1].last)])


def sparkline(counts: Sequence[int]) -> str:
    """The growth from each count to the next, as bars."""
    growth = [after - before for before, after in pairwise(counts)]
    highest = max(growth, default=0)
    bars = [BARS[0] if step <= 0 else BARS[1 + step * (len(BARS) - 2) // highest] for step in growth]
    return "".join(bars).rjust(33)


def _order(order: dict[str, object]) -> Text:
    items = order.get("items")
    what = ", ".join(map(str, items)) if isinstance(items, list) else ""
    return Text(
        f"  order {order.get('order')}: {order.get('customer')} buys {what} for {order.get('total')}", style="dim"
    )


def table(verdicts: Sequence[Verdict]) -> Table:
    """What was measured, a column for each pipeline."""
    shown = Table(title="What was committed, and what arrived", title_justify="left")
    shown.add_column("")
    for verdict in verdicts:
        shown.add_column(verdict.pipeline, justify="right")
    must_be_zero = ("missing", "out of order", "rolled back but delivered", "altered")
    lines = {
        "published": [v.published for v in verdicts],
        "rolled back": [v.rolled_back for v in verdicts],
        "delivered": [v.delivered for v in verdicts],
        "missing": [v.missing for v in verdicts],
        "out of order": [v.out_of_order for v in verdicts],
        "rolled back but delivered": [v.uncommitted for v in verdicts],
        "altered": [v.altered for v in verdicts],
        "duplicates": [v.duplicates for v in verdicts],
    }
    for name, values in lines.items():
        styled = [Text(str(value), style=_style(value, name in must_be_zero)) for value in values]
        shown.add_row(name, *styled)
    shown.add_row("p50, commit to delivery", *[f"{v.p50_ms:.1f} ms" for v in verdicts])
    shown.add_row("p99, commit to delivery", *[f"{v.p99_ms:.1f} ms" for v in verdicts])
    return shown


def receipts_table(verdict: ReceiptVerdict) -> Table:
    """What was measured of the jobs."""
    lines = {
        "enqueued": (verdict.enqueued, False),
        "undone": (verdict.rolled_back, False),
        "succeeded": (verdict.succeeded, False),
        "after failing twice": (verdict.failing_first, False),
        "lost": (verdict.missing, True),
        "wrong number of attempts": (verdict.wrong_attempts, True),
        "undone but there": (verdict.uncommitted, True),
    }
    return _figures("What was enqueued in the same transactions, and what ran", QUEUE, lines)


def totals_table(verdict: TotalsVerdict) -> Table:
    """What was measured of the stream table."""
    lines = {
        "orders counted": (verdict.orders, False),
        "rows": (verdict.rows, False),
        "changes delivered": (verdict.changes, False),
        "orders miscounted": (verdict.uncounted, True),
        "rows unlike the query": (verdict.different, True),
        "rows not rebuilt from changes": (verdict.not_rebuilt, True),
    }
    return _figures("What was kept equal to its query, and delivered as it changed", TABLE, lines)


def _figures(title: str, name: str, lines: dict[str, tuple[int, bool]]) -> Table:
    """Figures of one thing, and whether each must be 0."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    shown.add_column(name, justify="right")
    for label, (value, must_be_zero) in lines.items():
        shown.add_row(label, Text(str(value), style=_style(value, must_be_zero)))
    return shown


def _style(value: int, must_be_zero: bool) -> str:
    if not must_be_zero:
        return ""
    return "bold red" if value else "green"
