"""Releases beside each other, and one release over time."""

import json
import re
from pathlib import Path

import pytest

from tests.chart.discovery import Object
from tests.chart.helm import Helm
from tests.chart.objects import name_of, names, of_kind, pods, selectors, selects
from tests.chart.values import CI_FILES, MINIMAL, ci_values, minimal

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.timeout(900)]

FIRST_VERSION = Path(__file__).with_name("data") / "selectors-0.1.0.json"


def all_selectors(objects: list[Object]) -> dict[str, Object]:
    found = {name_of(one): dict(selectors(one)) for one in objects if one["kind"] in ("Deployment", "Service")}
    return {name: each for name, each in sorted(found.items()) if each}


def specs(objects: list[Object]) -> dict[str, str]:
    """What the objects are, whatever namespace they are in."""
    found = {name_of(one): json.dumps(one.get("spec", one.get("data")), sort_keys=True) for one in objects}
    return {name: re.sub(r"\bns-\d+\b", "any", spec) for name, spec in found.items()}


def test_two_releases_in_one_namespace_do_not_collide(helm: Helm) -> None:
    namespace = helm.new_namespace()
    values = minimal(api__enabled=True, postgres__existingSecret="", postgres__url="postgresql://a/b")
    first = helm.install(values, namespace=namespace, release="first")
    second = helm.install(values, namespace=namespace, release="second")
    assert names(first) and not names(first) & names(second)
    for ours, theirs in ((first, second), (second, first)):
        strangers = [pod["metadata"]["labels"] for _, pod in pods(theirs)]
        for one in ours:
            for where, selector in selectors(one):
                assert not [labels for labels in strangers if selects(selector, labels)], f"{name_of(one)}: {where}"


def test_long_names_stay_apart_and_within_63_characters(helm: Helm) -> None:
    release = "a-release-whose-name-is-as-long-as-helm-lets-it-be-53"
    assert len(release) == 53
    group = {"a-group-of-20-letter": {"queues": ["tide.forward"]}, "a-group-of-20-letteR".lower()[:-1]: {}}
    objects = helm.install(minimal(api__enabled=True, workers__groups=group), release=release)
    assert len(names(objects)) == len(objects)
    assert max(len(one["metadata"]["name"]) for one in objects) <= 63
    for one in objects:
        assert all(len(str(value)) <= 63 for value in one["metadata"]["labels"].values()), name_of(one)


@pytest.fixture(scope="module")
def least(helm: Helm) -> str:
    """The namespace of a release with the least. Each test leaves it so."""
    namespace = helm.new_namespace()
    helm.install(MINIMAL, namespace=namespace)
    return namespace


@pytest.mark.parametrize("name", CI_FILES)
def test_from_the_least_to_anything_and_back_are_upgrades(helm: Helm, least: str, name: str) -> None:
    """And so is the same again: nothing changes that Kubernetes has fixed. Each sends what an installation sends."""
    for _ in range(2):
        upgraded = helm.upgrade(ci_values(name), namespace=least)
    assert specs(upgraded + helm.test(namespace=least)) == specs(helm.rendered(ci_values(name)))
    helm.upgrade(MINIMAL, namespace=least)
    assert helm.history(namespace=least)[-4:] == ["superseded"] * 3 + ["deployed"]


def test_selectors_are_those_of_the_first_version(helm: Helm) -> None:
    """Kubernetes does not change the selector of a Deployment: an upgrade from 0.1.0 would fail."""
    assert all_selectors(helm.rendered(minimal(api__enabled=True))) == json.loads(FIRST_VERSION.read_text())


@pytest.mark.parametrize("name", CI_FILES)
def test_jobs_are_hooks_that_are_made_anew(helm: Helm, name: str) -> None:
    """The template of a job cannot be changed either."""
    for job in of_kind(helm.rendered(ci_values(name)), "Job"):
        annotations = job["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade", name_of(job)
        assert "before-hook-creation" in annotations["helm.sh/hook-delete-policy"], name_of(job)


def test_pods_are_replaced_when_their_settings_change(helm: Helm) -> None:
    def templates(values: Object) -> dict[str, Object]:
        return {owner: pod for owner, pod in pods(helm.rendered(values)) if owner.startswith("Deployment")}

    before, after = templates(MINIMAL), templates(minimal(config__logLevel="debug"))
    assert before.keys() == after.keys()
    assert [owner for owner in before if before[owner] == after[owner]] == []
