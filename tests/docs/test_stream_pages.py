"""The pages about stream tables: each block runs as it is printed, and prints what the page says."""

import re
from collections.abc import Iterator

import pytest

from relay.local.servers import EmbeddedRedis
from tests.docs.pages import blocks, text_of
from tests.docs.stream_pages import BLOCK, StreamSite, psql, stream_site
from tests.paths import ROOT
from tests.services.postgres import PostgresServer

pytestmark = [pytest.mark.xdist_group("stream-pages"), pytest.mark.timeout(300)]
PAGES = (
    *(f"stream-tables/{name}" for name in ("index", "layers", "projections", "dimensions", "fan-out")),
    *(f"stream-tables/{name}" for name in ("dashboards", "tiers", "monitoring")),
    "migrating-from/materialized-views",
)  # fmt: skip
STRATEGIES = "stream-tables/strategies"
ROW = re.compile(r"^\| `(?P<query>(?:select|with) .+)` \| (?P<changed>\w+) \| (?P<what>.+) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def site(
    _postgres18: PostgresServer, _redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StreamSite]:
    with stream_site(_postgres18, _redis, tmp_path_factory.mktemp("stream-pages") / "fleet") as made:
        yield made


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_as_printed(site: StreamSite, page: str) -> None:
    site.read(page)


def test_each_query_has_the_strategy_that_the_page_says(site: StreamSite) -> None:
    [tables] = blocks(STRATEGIES)
    rows = [row.groupdict() for row in ROW.finditer(text_of(STRATEGIES))]
    incremental = text_of(STRATEGIES).partition("## Computed as a whole")[0].count("\n| `select ")
    assert len(rows) > incremental > 10
    with site.database.connect() as db:
        db.execute(tables)
        for number, row in enumerate(rows):
            options = "schedule => '200ms', refresh_mode => 'DIFFERENTIAL'"
            db.execute(f"select tide.create_stream_table('strategy_{number}', %s, {options})", [row["query"]])
        db.execute("insert into buyers values (1, 'Ada', 'FR'), (2, 'Bo', 'FR'), (3, 'Cy', null)")
        found = []
        for number, row in enumerate(rows):
            db.execute(f"select tide.wait_for_stream_table('strategy_{number}')")
            [(strategy,)] = db.execute(
                "select (tide.stream_kept((tide.find_stream(%s)).stream_id, array[%s::regclass::oid])).strategy",
                [f"strategy_{number}", row["changed"]],
            )
            found.append(strategy or "full")
        assert found == [row["what"] if at < incremental else "full" for at, row in enumerate(rows)]
        db.execute(
            "insert into buys values (1, 1, 'bell', 5, null, '2026-03-01'), (2, 1, 'lock', 20, null, '2026-03-02')"
        )
        db.execute("update buys set buyer_id = 2, price = 12 where buy_id = 2; delete from buyers where buyer_id = 3")
        for number, row in enumerate(rows):
            db.execute(f"select tide.wait_for_stream_table('strategy_{number}')")
            one, other = (
                f"table strategy_{number} except all ({row['query']})",
                f"({row['query']}) except all table strategy_{number}",
            )
            assert db.execute(f"({one}) union all ({other})").fetchall() == [], row["query"]
    site.relay("stream", "explain", "strategy_0")


def test_the_first_steps_are_those_of_jobs_which_are_tested_with_an_installed_wheel() -> None:
    assert blocks("stream-tables/index", "sh")[0] == blocks("jobs/index", "sh")[0]


def test_every_page_is_run_and_has_blocks_of_known_kinds() -> None:
    written = {f"stream-tables/{path.stem}" for path in (ROOT / "docs/stream-tables").glob("*.md")}
    assert written - set(PAGES) == {STRATEGIES, "stream-tables/recovery"}
    for page in written:
        assert {language for language, _ in BLOCK.findall(text_of(page))} <= {"sql", "sh", "text"}, page


def test_a_result_that_differs_is_noticed(site: StreamSite) -> None:
    assert "2" in psql(site.database, "select 2 as one")
    with pytest.raises(AssertionError):
        psql(site.database, "select 1 / 0")
