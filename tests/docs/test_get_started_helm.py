"""Getting started with Helm: its SQL runs on a server of the test's own; its commands are held against the chart."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import blocks
from tests.docs.shell import commands, is_a_verb
from tests.e2e.drains import Drains, draining
from tests.services.postgres import Database

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm"
PAGE = "get-started/helm"


@pytest.fixture
def drains(database: Database) -> Iterator[Drains]:
    with draining(database) as made:
        yield made


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    return found


def value_at(values: dict[str, Any], path: str) -> Any:
    """The chart's default. What a group of workers does not say is said for all of them."""
    found: Any = values
    for part in re.sub(r"^workers\.groups\.(\w+)\.(?!enabled\b)", "workers.", path).split("."):
        assert part in found, f"the chart has no value {path}"
        found = found[part]
    return found


def helm() -> list[list[str]]:
    return [words for words in commands(PAGE) if words[0] == "helm"]


def given() -> dict[str, str]:
    """Every `--set` of the page."""
    return dict(
        value.split("=", 1) for words in helm() for option, value in itertools.pairwise(words) if option == "--set"
    )


def test_a_message_arrives(drains: Drains) -> None:
    make, look = blocks(PAGE)
    drains.db.execute(make)
    drains.until_idle("orders-to-inbox")
    assert drains.query(look) == [("orders:1", {"order": 42, "total": 99.5})]


def test_the_chart_is_where_the_commands_say() -> None:
    clone = next(words for words in commands(PAGE) if words[:2] == ["git", "clone"])
    checkout = clone[-1].rpartition("/")[2]
    for words in helm():
        assert words[2] == "tide"
        if words[1] != "test":
            assert ROOT / words[3].removeprefix(f"{checkout}/") == CHART


def test_an_upgrade_gives_all_values_again() -> None:
    """What an upgrade reuses lacks the defaults of a newer chart, which refuses it."""
    text = "".join(path.read_text("utf-8") for path in (CHART / "README.md", ROOT / "docs" / f"{PAGE}.md"))
    assert "helm upgrade" in text
    assert not re.search(r"helm upgrade[^`]*--reuse-values", text)
    urls = ["postgres.existingSecret=tide-urls", "broker.existingSecret=tide-urls"]
    assert all(set(urls) <= set(words) for words in helm() if words[1] != "test")


def test_what_is_set_are_values_of_the_chart(values: dict[str, Any]) -> None:
    assert given()
    for path, text in given().items():
        assert type(yaml.safe_load(text)) is type(value_at(values, path)), f"{path} is of another type"


def test_the_other_values_that_are_named_are_there(values: dict[str, Any]) -> None:
    text = (ROOT / "docs" / f"{PAGE}.md").read_text("utf-8")
    named = [
        path
        for row in re.findall(r"^\| .* \| (`.*) \|$", text, re.MULTILINE)
        for path in re.findall(r"`([\w.]+)`", row)
    ]
    paths = [path for path in named if path not in {"keda", "hpa"}]
    assert len(paths) > 5
    for path in [*paths, "drainTimeoutSeconds"]:
        value_at(values, path)


def test_the_secret_has_the_name_and_the_keys_that_the_chart_looks_for(values: dict[str, Any]) -> None:
    [secret] = [words for words in commands(PAGE) if "secret" in words]
    name = secret[secret.index("generic") + 1]
    keys = {word.split("=")[1] for word in secret if word.startswith("--from-literal=")}
    assert {given()["postgres.existingSecret"], given()["broker.existingSecret"]} == {name}
    assert keys == {values["postgres"]["secretKey"], values["broker"]["secretKey"]}


def test_everything_happens_in_one_namespace() -> None:
    for words in commands(PAGE):
        if words[0] in {"helm", "kubectl"} and words[1:3] != ["create", "namespace"]:
            assert words[words.index("--namespace") + 1] == "tide"


def test_the_deployment_that_is_asked_is_made_by_the_chart() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    asked = [words for words in commands(PAGE) if "exec" in words]
    assert asked
    for words in asked:
        assert words[words.index("exec") + 1] == f"deployment/tide-{chart['name']}-scheduler"
        is_a_verb(words[words.index("--") + 1 :])


def test_the_version_of_kubernetes_is_that_of_the_chart() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    text = (ROOT / "docs" / f"{PAGE}.md").read_text("utf-8")
    assert re.findall(r"Kubernetes (\d+\.\d+)", text) == re.findall(r">=(\d+\.\d+)", chart["kubeVersion"])
