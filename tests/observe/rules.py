"""The rules file and the dashboard, read; and what their expressions name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "helm" / "alerts" / "tide-relay.yaml"
DASHBOARD = ROOT / "deploy" / "helm" / "dashboards" / "tide-relay.json"
Names = Iterator[tuple[str, frozenset[str]]]


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def panels() -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def with_variables(expression: str) -> str:
    """As Grafana would send it, with everything chosen."""
    for name in ("namespace", "pipeline", "group"):
        expression = expression.replace(f'"${name}"', '".*"')
    return expression.replace("$__rate_interval", "4m")


def expressions() -> list[str]:
    """All of them: those of alerts, of panels, and of the variables."""
    return [alert["expr"] for alert in alerts()] + [
        with_variables(target["expr"]) for panel in panels() for target in panel["targets"]
    ]


def named(expression: str) -> Names:
    """Each metric that an expression names, and the labels that it must have for the expression to mean something."""
    yield from _named(promql.parse(expression), frozenset())


def _named(node: Any, wanted: frozenset[str]) -> Names:
    """`wanted`: what the expression around this one expects in the labels of its result."""
    match node:
        case promql.VectorSelector():
            yield str(node.name), wanted | {matcher.name for matcher in node.matchers.matchers}
        case promql.MatrixSelector():
            yield from _named(node.vector_selector, wanted)
        case promql.AggregateExpr():
            yield from _named(node.expr, frozenset(node.modifier.labels) if node.modifier else frozenset())
        case promql.BinaryExpr():
            yield from _binary(node, wanted)
        case promql.Call():
            yield from _call(node, wanted)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from _named(node.expr, wanted)
        case promql.NumberLiteral() | promql.StringLiteral():
            return
        case _:
            raise AssertionError(f"{type(node).__name__}: not known here")


def _binary(node: Any, wanted: frozenset[str]) -> Names:
    on = node.modifier.matching if node.modifier else None
    matched = frozenset(on.labels) if on else frozenset()
    # What comes out has the labels of the left side.
    yield from _named(node.lhs, matched | wanted)
    yield from _named(node.rhs, matched)


def _call(node: Any, wanted: frozenset[str]) -> Names:
    if node.func.name == "label_replace":
        series, made, _, source, _ = node.args
        yield from _named(series, wanted - {made.val} | {source.val})
        return
    for argument in node.args:
        yield from _named(argument, wanted | {"le"} if node.func.name == "histogram_quantile" else wanted)
