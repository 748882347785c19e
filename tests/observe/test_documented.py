"""The rules, the dashboard, and the pages about them agree."""

import re

import click
import pytest

from relay.cli import main
from tests.observe.rules import ROOT, alerts, dashboard, expressions, named, panels

ALERTS = {alert["alert"]: alert for alert in alerts()}
PAGE = ROOT / "docs" / "operations" / "alerts.md"
RUNBOOKS = ROOT / "docs" / "operations" / "runbooks.md"
SITE = "https://tide-relay.github.io/tide-relay/operations/runbooks/"
CELLS = (r"`(?P<name>TideRelay\w+)`", r"(?P<severity>\w+)", r"(?P<when>.*?)", r"(?P<wait>.*?)", ".+")
ROW = re.compile(r"^\| " + r" \| ".join(CELLS) + r" \|$", re.MULTILINE)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_happened_what_to_do_first_and_where_to_read_on(name):
    alert = ALERTS[name]
    assert set(alert) - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert alert["labels"] in ({"severity": "warning"}, {"severity": "critical"})
    texts = alert["annotations"]
    assert set(texts) == {"summary", "description", "runbook_url"}
    assert len(texts["summary"]) < 120 and " First " in texts["description"]
    assert texts["runbook_url"] == f"{SITE}#{name.lower()}"


@pytest.mark.parametrize("name", ALERTS)
def test_the_texts_of_an_alert_name_labels_that_it_has(name):
    kept = {label.strip() for by in re.findall(r"by \((.*?)\)", ALERTS[name]["expr"]) for label in by.split(",")}
    assert set(re.findall(r"\$labels\.(\w+)", str(ALERTS[name]["annotations"]))) <= kept
    assert not kept & {"instance", "pod", "job"}, "it would start again when a pipeline moves"


@pytest.mark.parametrize("name", ALERTS)
def test_the_commands_that_an_alert_advises_are_real(name):
    for text in re.findall(r"`relay (.+?)`", ALERTS[name]["annotations"]["description"]):
        command: click.Command | None = main
        words = re.sub(r"\{\{.*?\}\}", "orders", text).split()
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words.pop(0))
        assert command, text
        command.make_context(text, words)  # parsed, and not run; raises UsageError


def test_the_page_has_a_row_for_each_alert_with_its_thresholds():
    rows = {row["name"]: row for row in ROW.finditer(PAGE.read_text())}
    assert list(rows) == list(ALERTS)
    for name, alert in ALERTS.items():
        assert rows[name]["severity"] == alert["labels"]["severity"]
        assert rows[name]["wait"] == alert.get("for", "immediately")
        for threshold in re.findall(r"[<>=] ([1-9]\d*)", alert["expr"]):
            assert f"{threshold} s" in rows[name]["when"], name
        windows = set(re.findall(r"(?:increase|min_over_time)\([^][]*\[(\w+)\]", alert["expr"]))
        assert windows == set(re.findall(r"\b\d+[mh]\b", rows[name]["when"])), name


def test_each_alert_has_a_runbook_and_each_runbook_an_alert():
    headings = re.findall(r"^#+ (TideRelay\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


def test_a_panel_has_a_unit_a_description_and_the_chosen_data_source():
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        title, targets = panel["title"], panel["targets"]
        assert panel["description"].endswith("."), title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert all(one["datasource"] == source for one in (panel, *targets)), title
        assert len({target["refId"] for target in targets}) == len(targets) > 0, title
        assert all("$namespace" in target["expr"] for target in targets), title


def test_the_panels_of_the_dashboard_have_ids_and_places_of_their_own():
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in everything)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken) and max(x for x, _ in taken) < 24
    titles = [panel["title"] for panel in everything if panel["type"] == "row"]
    assert [title.split(":")[0] for title in titles] == [
        "Overview", "Forward", "Reverse", "Workers", "Scheduler", "Retention", "Dead letters and failures",
        "Webhooks", "Jobs", "Stream tables",
    ]  # fmt: skip


def test_the_dashboard_uses_the_variables_that_it_has():
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    assert set(variables) == {"datasource", "namespace", "group", "pipeline"}
    used = set(re.findall(r"\$\{?([a-z]\w*)", str(panels())))
    assert used == set(variables)
    assert variables["datasource"]["type"] == "datasource"
    for name in set(variables) - {"datasource"}:
        assert variables[name]["allValue"] == ".*" and variables[name]["datasource"]["uid"] == "${datasource}"


def test_every_expression_names_metrics_of_ours_only():
    names = {metric for text in expressions() for metric, _ in named(text)}
    assert names and all(name.startswith(("tide_relay_", "tide_job_", "tide_jobs_", "tide_stream_")) for name in names)


def test_labels_that_an_expression_needs_are_found_wherever_they_stand():
    text = "sum by (a) (x{b='1'} * on (c) y) > 0 unless on (d) label_replace(z, 'd', '$1', 'e', '(.*)')"
    assert sorted((name, sorted(labels)) for name, labels in named(text)) == [
        ("x", ["a", "b", "c"]), ("y", ["c"]), ("z", ["e"]),
    ]  # fmt: skip
    (histogram,) = named("histogram_quantile(0.5, sum by (le, f) (rate(h_bucket[5m])))")
    assert histogram == ("h_bucket", frozenset({"le", "f"}))
