"""Templates that a sink fills in from a finished record; subject templates are in test_wire.py."""

import pytest

from relay.errors import ConfigError
from relay.models import Record
from relay.wire.templates import RECORD_VARIABLES, RecordTemplate

RECORD = Record(17, "a:b:17", "orders.paid", "k1", b"{}", {"tenant-id": "ü", "type": "paid", "a.b": "c"})


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{key}", "k1"),
        ("{outbox}", "a:b"),
        ("{outbox_id}", "17"),
        ("{subject}", "orders.paid"),
        ("{type}", "paid"),
        ("{header.tenant-id}", "ü"),
        ("{headers[tenant-id]}", "ü"),
        ("{header.a.b}", "c"),
        ("{header.none}", ""),
        ("{outbox}/{header.tenant-id}-{key}!", "a:b/ü-k1!"),
        ("{{{key}}}", "{k1}"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_variables_are_filled_in(template: str, expected: str) -> None:
    assert RecordTemplate(template).render(RECORD) == expected


def test_what_a_record_lacks_is_empty() -> None:
    assert RecordTemplate("[{key}{type}]").render(RECORD._replace(key=None, headers={})) == "[]"


def test_text_from_a_record_is_never_a_template_itself() -> None:
    assert RecordTemplate("{key}").render(RECORD._replace(key="{subject}")) == "{subject}"


@pytest.mark.parametrize(
    "template", ["{op}", "{}", "{header}", "{header.}", "{headers[]}", "{key!r}", "{key:>5}", "{key.x}"]
)
def test_an_unknown_variable_is_refused_and_the_known_ones_are_listed(template: str) -> None:
    with pytest.raises(ConfigError, match=r"message_group_id .* has an unknown variable") as caught:
        RecordTemplate(template, "message_group_id")
    assert all(f"{{{name}}}" in str(caught.value) for name in RECORD_VARIABLES)


@pytest.mark.parametrize("template", ["{key", "key}", "{"])
def test_unbalanced_braces_are_refused(template: str) -> None:
    with pytest.raises(ConfigError, match="unbalanced braces"):
        RecordTemplate(template)
