"""Suites that a backend passes whole, and another configuration of the same backend in so far as it may differ."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tests.paths import ROOT

Scenario = Callable[..., None]


class Suite:
    """What a suite is made of: its scenarios are its methods `test_...`.

    A test class runs all of them, unless it says that it is a variant, which of them it runs, and why these:

        class TestKafkaTransactional(SinkSuite, variant_of=TestKafka, because="...", runs=[SinkSuite.test_...]):
    """

    variant_of: ClassVar["type[Suite] | None"] = None
    because: ClassVar[str] = ""

    def __init_subclass__(
        cls,
        *,
        variant_of: "type[Suite] | None" = None,
        because: str = "",
        runs: Sequence[Scenario] = (),
        **other: Any,
    ) -> None:
        super().__init_subclass__(**other)
        if variant_of is None:
            return
        cls.variant_of, cls.because = variant_of, because
        left_out = scenarios(cls) - {scenario.__name__ for scenario in runs}
        for name in left_out:
            setattr(cls, name, None)  # pytest passes over what cannot be called


def scenarios(suite: type) -> set[str]:
    """The names of the scenarios that a class runs."""
    return {name for name in dir(suite) if name.startswith("test_") and callable(getattr(suite, name))}


def all_of(suite: type) -> list[Scenario]:
    """The scenarios of one part of a suite."""
    return [getattr(suite, name) for name in sorted(scenarios(suite))]


def modules() -> Iterator[list[Any]]:
    """What each module of tests of a backend defines."""
    for path in sorted(Path(__file__).parent.glob("*/test_*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield list(vars(importlib.import_module(name)).values())
