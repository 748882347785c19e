"""What the engine makes of values that are wrong: it agrees with the schema as this process reads it, and it refuses
contradictions, of which no schema can tell."""

import re

import pytest

from tests.chart.discovery import Object
from tests.chart.helm import Helm, Refused
from tests.chart.schema import refusals
from tests.chart.values import MINIMAL, minimal

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.timeout(900)]

# Nothing gets there, so all can share it: a client for each would take longer than the refusal.
NOWHERE = "refused"

# One for each rule that the schema has, at the top, deep in it, in lists and under free keys.
WRONG: dict[str, Object] = {
    "a misspelt key at the top": {"misspelt": 1},
    "a misspelt key of a group": {"workers": {"groups": {"forward": {"misspelt": 1}}}},
    "a misspelt key in a list": {"imagePullSecrets": [{"name": "registry", "misspelt": 1}]},
    "a wrong type": {"scheduler": {"enabled": "yes"}},
    "a wrong type in a list": {"workers": {"groups": {"forward": {"queues": [7]}}}},
    "a choice that there is not": {"config": {"logLevel": "loud"}},
    "a text of another form": {"broker": {"url": "http://broker"}},
    "a number that is too small": {"drainTimeoutSeconds": 0},
    "a number that is too large": {"scheduler": {"replicas": 1001}},
    "a text that is too short": {"config": {"relayGroupId": ""}},
    "a name that no group can have": {"workers": {"groups": {"Forward": {}}}},
    "a key that is missing": {"config": {"logLevel": None}},
    "one thing twice": {"secretFiles": ["nats", "nats"]},
    "two things at once": {"image": {"pullPolicy": "Sometimes"}, "api": {"enabled": 1}},
}


def test_the_least_is_enough_for_both(helm: Helm) -> None:
    assert helm.rendered(MINIMAL)
    assert refusals(MINIMAL) == []


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_the_engine_refuses_what_the_schema_refuses_at_the_same_place(helm: Helm, change: Object) -> None:
    values = MINIMAL | change
    with pytest.raises(Refused, match="specifications of the schema") as refused:
        helm.install(values, namespace=NOWHERE)
    named = set(re.findall(r"^- at '([^']*)'", str(refused.value), re.MULTILINE))
    assert named == {refusal.pointer for refusal in refusals(values)}


CONTRADICTIONS: list[tuple[str, Object, str]] = [
    ("no database", {"broker": {"existingSecret": "urls"}}, "postgres.existingSecret"),
    ("no broker", {"postgres": {"existingSecret": "urls"}}, "broker.existingSecret"),
    ("two databases", minimal(postgres__url="postgresql://a/b"), "postgres.url and postgres.existingSecret"),
    ("two brokers", minimal(broker__url="redis://a"), "broker.url and broker.existingSecret"),
    ("a rollout that cannot move", minimal(scheduler__rollingUpdate={"maxSurge": 0}), "scheduler.rollingUpdate"),
    ("more at least than at most", minimal(workers__autoscaling={"kind": "hpa", "minReplicas": 9}), "minReplicas 9"),
    ("hpa from zero", minimal(workers__autoscaling={"kind": "hpa", "minReplicas": 0}), "needs kind keda"),
    ("keda without Prometheus", minimal(workers__autoscaling__kind="keda"), "serverAddress"),
    (
        "nothing to scale on",
        minimal(workers__autoscaling={"kind": "hpa", "lagSeconds": 0, "drainsWaiting": 0}),
        "nothing to scale on",
    ),
]


@pytest.mark.parametrize(("values", "said"), [pytest.param(*rest, id=name) for name, *rest in CONTRADICTIONS])
def test_contradictions_are_refused_with_what_to_do(helm: Helm, values: Object, said: str) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        helm.install(values, namespace=NOWHERE)
