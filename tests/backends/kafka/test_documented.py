"""The pages of Kafka explain every code that can be met."""

import pytest

from relay.backends.kafka.errors import ERRORS
from tests.paths import ROOT

DOCS = ROOT / "docs"
CODES = set(ERRORS.codes)


def test_every_code_of_the_sink_is_explained() -> None:
    page = (DOCS / "sinks" / "kafka.md").read_text()
    own = {"not_sent", "closed", "bad_topic", "bad_text"}
    assert {code for code in CODES | own if f"`{code}`" not in page} == set()


def test_every_code_of_the_source_is_explained() -> None:
    page = (DOCS / "sources" / "kafka.md").read_text()
    of_the_sink = {"too_large", "bad_record", "throttled", "fenced", "rejected"}
    assert {code for code in CODES - ERRORS.needs_operator - of_the_sink if f"`{code}`" not in page} == set()


@pytest.mark.parametrize("direction", ["sinks", "sources"])
def test_keys_of_librdkafka_that_are_refused_are_not_recommended(direction: str) -> None:
    from relay.backends.kafka.config import TAKEN

    page = (DOCS / direction / "kafka.md").read_text()
    assert {key for key in TAKEN if f'"{key}"' in page} == set()
