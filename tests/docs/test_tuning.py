"""docs/operations/tuning.md and sizing.md: knobs have the defaults that are said, figures were measured."""

import re

from relay.backends.registry import sink_class
from relay.pipelines.config import ForwardPipeline, ReversePipeline
from relay.settings import Settings
from tests.docs.pages import ROOT, text_of
from tests.services.postgres import Database

ROWS = re.findall(r"^\| [^|]+ \| `(\w+)`([^|]*) \| (`\w+`|\S+) \| ", text_of("operations/tuning"), re.MULTILINE)
OF_POSTGRES = {
    "partition_size": "select column_default from information_schema.columns where column_name = 'partition_size'",
    "synchronous_commit": "select boot_val from pg_settings where name = 'synchronous_commit'",
    "key": "select 'none' from pg_proc where proname = 'outbox_publish' and 'key' = any (proargnames)",
}


def default_of(knob: str, where: str) -> str:
    if knob.startswith("RELAY_"):
        field = knob.removeprefix("RELAY_").lower()
        if field == "worker_processes":
            return "(CPUs)"
        fields = Settings.model_fields
        return str(fields[field].default) if field in fields else f"{fields[f'{field}_seconds'].default:.0f}s"
    sink = re.search(r"of the ([\w ]+) sink", where)
    kinds = (
        [sink_class(sink[1].replace(" ", "_")).config_model]
        if sink
        else [ForwardPipeline, sink_class("nats").config_model]
    )
    [default] = [kind.model_fields[knob].default for kind in kinds if knob in kind.model_fields]
    return str(default).lower()


def test_each_knob_has_the_default_that_is_said(database: Database) -> None:
    with database.connect() as connection:
        for knob, where, said in ROWS:
            if statement := OF_POSTGRES.get(knob):
                found = str(connection.execute(statement).fetchall()[0][0])
            else:
                found = default_of(knob, where)
            assert found == said.strip("`"), knob


def test_every_row_of_the_table_is_held() -> None:
    table = text_of("operations/tuning").split("|---|---|---|---|\n")[1].split("\n\n")[0]
    assert len(ROWS) == len(table.splitlines()) == 18
    assert ReversePipeline.model_fields["batch_size"].default == ForwardPipeline.model_fields["batch_size"].default


# As the pages say them, and as they stand in the results.
FIGURES = {
    "23,000/s": "23,234/s", "232,000/s": "232,232/s", "3,800/s": "3,795/s", "2,100/s": "2,105/s", "3.6 %": "3.55 %",
    "1.0 %": "1.02 %", "4.8 ms": "4.81 ms", "3.9 ms": "3.86 ms", "79.7 MB": "79.7 MB", "88 MB": "88 MB",
    "0.50": "0.50", "0.38": "0.38", "0.56": "0.56", "1.02 ms": "1.02 ms", "149/s": "149/s", "294/s": "294/s",
    "0.97": "0.97", "0.78": "0.78", "0.85": "0.85",
    "540/s": "540/s", "65,641/s": "65,641/s", "62,976/s": "62,976/s", "50,597/s": "50,597/s",
}  # fmt: skip


def test_figures_are_those_that_were_measured() -> None:
    results = (ROOT / "benchmarks/results.md").read_text()
    pages = text_of("operations/sizing") + text_of("operations/tuning")
    said = re.findall(r"\d[\d.,]* (?:MB at|ms (?:with|from|at))|\d[\d,]*/s|\d\.\d % of a core|0\.\d\d", pages)
    for figure in said:
        [measured] = [there for here, there in FIGURES.items() if figure.startswith(here)]
        assert measured in results, figure
    assert len(said) >= 9
