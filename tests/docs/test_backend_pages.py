"""The pages of docs/backends: each key with its default and unit, no key that does not exist, and one form for all."""

import pkgutil
import re

import pytest

from relay.backends.common.error_table import ErrorTable
from relay.backends.registry import sink_class, source_class
from relay.pipelines.config import SUBJECT_KEYS, parse_forward, parse_reverse
from tests.docs.backend_pages import (
    ALL,
    FOLDER,
    KEY_HEADINGS,
    Direction,
    codes,
    config_model,
    dead_letters,
    keys,
    page,
    section,
    shown,
    system,
    tables,
)

DIRECTIONS: dict[str, set[Direction]] = {}
for _direction, _name in ALL:
    DIRECTIONS.setdefault(system(_direction, _name), set()).add(_direction)
SYSTEMS = sorted(DIRECTIONS)
UNITS = {"_ms": "milliseconds", "_seconds": "seconds", "_bytes": "bytes"}

NOT_MET: dict[tuple[Direction, str], str] = {
    ("sink", "kafka"): "out_of_range",
    ("source", "kafka"): "too_large bad_record throttled fenced",
    ("source", "nats"): "too_large bad_header bad_subject limits no_stream out_of_order stream_full wrong_stream",
    ("sink", "redis"): "no_group no_stream",
    ("source", "redis"): "id_passed no_stream too_large",
    ("sink", "rabbitmq"): "cancelled",
    ("source", "rabbitmq"): "too_large nacked blocked",
    ("sink", "sqs"): "receipt no_region",
    ("source", "sqs"): "too_large no_region",
    ("sink", "object_storage"): "bucket_exists bucket_taken no_region",
    ("sink", "file"): "timeout broken_pipe",
    ("source", "file"): "timeout broken_pipe disk_full file_too_large no_locks",
    ("sink", "stdio"): "bad_path no_folder no_locks no_memory no_permission not_a_file too_many_files",
}
"""Codes of a system's table of errors that this direction cannot meet, or only while it opens: then it is `config`."""

OWN: dict[tuple[Direction, str], str] = {
    ("sink", "kafka"): "not_sent closed bad_topic bad_text",
    ("source", "kafka"): "closed bad_header",
    ("sink", "nats"): "not_sent closed",
    ("source", "nats"): "no_consumer closed",
    ("sink", "redis"): "not_sent closed bad_subject foreign_stream",
    ("source", "redis"): "closed",
    ("sink", "rabbitmq"): "not_sent closed unroutable bad_routing_key bad_header",
    ("source", "rabbitmq"): "closed",
    ("sink", "sqs"): "not_sent closed",
    ("source", "sqs"): "closed",
    ("sink", "object_storage"): "closed not_utf8 disk_full no_permission no_folder io",
    ("sink", "webhook"): "not_sent closed bad_config bad_url bad_header redirect",
    ("sink", "file"): "locked",
    ("source", "file"): "no_file",
    ("sink", "stdio"): "",
}
"""Codes beside that table, which the sink or source gives itself."""

each_backend = pytest.mark.parametrize(("direction", "name"), ALL)


def test_each_system_has_a_page_and_each_page_a_system() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == SYSTEMS


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_page_has_the_same_sections(name: str) -> None:
    wanted = ["Connection", *(direction.title() for direction in sorted(DIRECTIONS[name])), "Errors"]
    assert re.findall(r"^## (.+)$", page(name), re.MULTILINE) == wanted


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_heading_of_a_page_stands_twice(name: str) -> None:
    """Else GitHub and the site number its anchors, each in its own way."""
    headings = re.findall(r"^##+ (.+)$", page(name), re.MULTILINE)
    assert sorted(set(headings)) == sorted(headings)


@pytest.mark.parametrize("name", [name for name in SYSTEMS if len(DIRECTIONS[name]) == 2])
def test_a_key_of_sink_and_source_stands_once(name: str) -> None:
    text = page(name)
    shared = [row[0] for table in tables(section(text, "Connection")) if table[0] == KEY_HEADINGS for row in table[1:]]
    own = [table for heading in ("sink", "source") for table in tables(section(text, heading))]
    again = [row[0] for table in own if table[0] == KEY_HEADINGS for row in table[1:] if row[0] in shared]
    assert again == []


@each_backend
def test_every_key_is_listed_with_its_default(direction: Direction, name: str) -> None:
    listed = keys(direction, name)
    for key, field in config_model(direction, name).model_fields.items():
        assert key in listed, f"{key} of the {direction} {name} is not on its page"
        if field.is_required():
            assert listed[key].default == "(required)"
        elif field.default is not None:
            assert listed[key].default.strip('`"') == shown(field.default), key
        else:
            assert listed[key].default != "(required)", key
        for choice in getattr(field.validation_alias, "choices", []):
            assert choice in listed, f"{choice} means {key}, and the page does not say so"


@each_backend
def test_every_key_that_is_listed_exists(direction: Direction, name: str) -> None:
    fields = config_model(direction, name).model_fields
    known = set(fields)
    for field in fields.values():
        known |= set(getattr(field.validation_alias, "choices", []))
    if direction == "sink":
        features = sink_class(name).features
        own = {*features.subject_aliases, *filter(None, [features.subject_key])}
        assert own - keys(direction, name).keys() == set()
        known |= {*SUBJECT_KEYS, *own}
    assert keys(direction, name).keys() - known == set()


@each_backend
def test_every_number_has_its_unit(direction: Direction, name: str) -> None:
    for key, row in keys(direction, name).items():
        for ending, unit in UNITS.items():
            if key.endswith(ending):
                assert unit in row.type, f"{key} is a number of {unit}; the page says {row.type}"


@each_backend
def test_the_default_wire_format_is_named(direction: Direction, name: str) -> None:
    features = (sink_class(name) if direction == "sink" else source_class(name)).features
    said = re.findall(r"default\s+`wire_format`\s+is\s+`(\w+)`", section(page(system(direction, name)), direction))
    assert said == [features.default_wire_format]


@each_backend
def test_a_key_that_is_not_listed_is_refused(direction: Direction, name: str) -> None:
    parse = parse_forward if direction == "sink" else parse_reverse
    with pytest.raises(Exception, match="no_such_key"):
        parse({f"{direction}_type": name, "no_such_key": 1})


def error_table(name: str) -> ErrorTable:
    module = "common.os_errors:OS_ERRORS" if name in {"file", "stdio"} else f"{name}.errors:ERRORS"
    found: ErrorTable = pkgutil.resolve_name(f"relay.backends.{module}")
    return found


def test_the_codes_of_each_backend_with_a_table_of_errors_are_compared() -> None:
    without = {("sink", "postgresql"), ("source", "postgresql"), ("source", "webhook"), ("source", "stdio")}
    assert set(OWN) == {(direction, system(direction, name)) for direction, name in ALL} - without


@pytest.mark.parametrize(("direction", "name"), OWN)
def test_every_code_that_can_be_met_is_explained_and_no_other(direction: Direction, name: str) -> None:
    known = error_table(name).codes
    met = known - set(NOT_MET.get((direction, name), "").split()) | set(OWN[direction, name].split()) | {"config"}
    explained = {code for code in codes(name, direction) if not code.startswith("http_")}
    assert explained == met


@pytest.mark.parametrize("name", [name for direction, name in OWN if direction == "sink"])
def test_a_code_is_a_dead_letter_on_the_page_if_it_is_permanent(name: str) -> None:
    known, said = error_table(name), dead_letters(name)
    assert known.permanent <= said
    assert said & known.codes - known.permanent <= {"id_passed"}, "that one is permanent with exactly_once alone"


def test_properties_of_librdkafka_that_are_recommended_are_not_refused() -> None:
    from relay.backends.kafka.config import TUNING

    assert set(re.findall(r'"librdkafka": \{"([a-z.]+)"', page("kafka"))) <= TUNING
