"""Which alerts fire, judged by promtool of series that are made by hand."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.observe.prometheus import promtool
from tests.observe.rules import RULES

KEPT = "alertname, pipeline, queue, inbox, outbox, consumer_group, relay_group_id, way, stream_table"
SHOWN = f"sum by ({KEPT}) (ALERTS{{alertstate='firing'}})"
# A fleet that does nothing, and is well.
WELL = {
    'tide_relay_pipelines_owned{pod="s1"}': "1x200",
    'tide_relay_pipelines_unowned{pod="s1"}': "0x200",
    'tide_relay_loop_age_seconds{pod="s1"}': "0.5x200",
    'tide_relay_broker_up{pod="s1"}': "1x200",
    'tide_relay_drains_running{pod="w1"}': "0x200",
}


def wanted(alert: str) -> dict[str, object]:
    """A sample of `SHOWN`: `NoOwner` or `NoOwner{relay_group_id="eu"}`."""
    name, _, labels = alert.removesuffix("}").partition("{")
    return {"labels": f'{{alertname="{name}"{", " if labels else ""}{labels}}}', "value": 1}


def judge_in(folder: Path) -> Callable[..., None]:
    """Asserts which alerts fire at a moment, of these series beside those of a fleet that is well.

    Two values a minute; an empty text takes a series of the fleet away.
    """

    def judge(at: str, series: dict[str, str], *expected: str) -> None:
        given = [{"series": name, "values": values} for name, values in (WELL | series).items() if values]
        asked = {"expr": SHOWN, "eval_time": at, "exp_samples": list(map(wanted, expected))}
        test = {"interval": "30s", "input_series": given, "promql_expr_test": [asked]}
        path = folder / "test.json"
        path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [test]}))
        content, said = promtool("test", "rules", path)
        assert content, said

    return judge
