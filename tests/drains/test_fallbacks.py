"""Each reason for which a refresh computes the whole query has a code, and functions in SQL give these reasons."""

import pytest

from relay.drains import fallbacks
from relay.drains.fallbacks import REASONS, WANTED, fallback
from tests.paths import ROOT

SQL = "\n".join(path.read_text() for path in (ROOT / "relay/sql/functions").glob("stream*.sql"))


@pytest.mark.parametrize("text", [*REASONS, WANTED])
def test_a_reason_is_one_that_is_given(text: str) -> None:
    assert text in SQL


def test_the_codes_are_those_of_the_pages() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    for code in {*REASONS.values(), "query"}:
        assert f"| `{code}` |" in page
        assert f"\n{code} " in (fallbacks.__doc__ or "")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("it has not been computed since it was created, resumed or restored", "first"),
        ("12 of about 30 rows of its sources changed", "cost"),
        ("900 changed rows were expected to take 30 ms, and all 10 ms", "cost"),
        ("how these sources change it together has not been analysed yet", "analysis"),
        ("the incremental refresh failed: a sum is NaN or infinite, or a count is below zero", "failed"),
        ("set operations other than UNION ALL", "query"),
        ("its refresh_mode is FULL", None),
    ],
)
def test_a_reason_has_a_code(reason: str, code: str | None) -> None:
    assert fallback(reason) == code
