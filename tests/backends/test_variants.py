"""No scenario is left out of a backend: one configuration of it runs all, and a variant says what it runs and why."""

import pytest

from tests.backends.source_suite import SourceSuite
from tests.backends.suite import SinkSuite
from tests.backends.variants import Suite, modules, scenarios


def classes_of(suite: type[Suite]) -> set[type[Suite]]:
    """Those that give the suite a backend, in all modules here."""
    found: set[type[Suite]] = set()
    for values in modules():
        found |= {each for each in values if isinstance(each, type) and issubclass(each, suite) and each is not suite}
    return found


@pytest.mark.parametrize("suite", [SinkSuite, SourceSuite])
def test_every_scenario_is_run_by_a_configuration_of_each_backend(suite: type[Suite]) -> None:
    """That each backend has one that is no variant: tests/backends/test_matrix.py."""
    classes = classes_of(suite)
    whole = {each for each in classes if each.variant_of is None}
    assert len(whole) > 5
    assert [each for each in whole if not scenarios(each) >= scenarios(suite)] == []
    assert {each.variant_of for each in classes - whole} <= whole


@pytest.mark.parametrize("suite", [SinkSuite, SourceSuite])
def test_a_variant_runs_some_scenarios_and_says_why(suite: type[Suite]) -> None:
    variants = [each for each in classes_of(suite) if each.variant_of]
    assert variants
    assert [each for each in variants if not each.because or not scenarios(each) & scenarios(suite)] == []
    assert [each for each in variants if scenarios(each) >= scenarios(suite)] == [], "these are no variants"
