"""The configuration of a pipeline: defaults, aliases, and errors that name the key."""

from dataclasses import replace

import pytest

from relay.backends.memory.sink import MemorySink
from relay.backends.nats.sink import NatsSink
from relay.backends.registry import SINKS
from relay.errors import ConfigError
from relay.pipelines.config import ForwardPipeline, parse_forward

NATS = {"sink_type": "nats", "url": "nats://localhost", "stream": "orders"}
OURS = [
    "batch_size",
    "cloudevents_source",
    "cloudevents_type",
    "lanes",
    "poll_interval_ms",
    "relay_group_id",
    "sink_type",
    "slice_ms",
    "subject_template",
    "visibility_timeout_ms",
    "wire_format",
]


def memory(**keys):
    return parse_forward({"sink_type": "memory", **keys})


def problem(config, *, resolved=False):
    """What is said about a bad configuration."""
    with pytest.raises(ConfigError) as caught:
        parse_forward(config, resolved=resolved)
    return str(caught.value)


def test_defaults():
    config = memory()
    assert config.pipeline == ForwardPipeline(
        sink_type="memory",
        batch_size=100,
        poll_interval_ms=1000,
        visibility_timeout_ms=30_000,
        slice_ms=2000,
        subject_template=None,
        wire_format=None,
        relay_group_id=None,
    )
    assert config.sink.timeout_ms == 10_000
    assert config.sink_class is MemorySink


def test_subject_and_wire_format_are_the_sinks_own_where_none_is_named():
    assert (memory().subject_template, memory().wire_format) == ("{outbox}", "raw")
    assert parse_forward({"sink_type": "file", "path": "/tmp/x"}).wire_format == "envelope"
    named = memory(subject_template="a.{type}", wire_format="envelope")
    assert (named.subject_template, named.wire_format) == ("a.{type}", "envelope")
    assert memory(subject_template="").subject_template == ""


@pytest.mark.parametrize(
    ("alias", "key"),
    [("subject", "subject_template"), ("subject_template", "subject_template")],
)
def test_aliases_of_the_pipeline(alias, key):
    assert getattr(memory(**{alias: "a.b"}).pipeline, key) == "a.b"


@pytest.mark.parametrize("url", ["url", "nats_url", "servers"])
@pytest.mark.parametrize("stream", ["stream", "nats_stream"])
def test_aliases_of_the_nats_sink(url, stream):
    config = parse_forward({"sink_type": "nats", url: "nats://a, nats://b", stream: "orders"})
    assert (config.sink.url, config.sink.stream) == (["nats://a", "nats://b"], "orders")
    assert config.sink_class is NatsSink


def test_the_issues_own_example_is_good():
    config = parse_forward(
        {
            **NATS,
            "batch_size": 500,
            "poll_interval_ms": 200,
            "visibility_timeout_ms": 60_000,
            "slice_ms": 5000,
            "subject_template": "orders.{op}",
            "wire_format": "envelope",
        }
    )
    assert (config.pipeline.batch_size, config.pipeline.slice_ms) == (500, 5000)


@pytest.mark.parametrize("config", [{}, {"sink_type": None}, {"sink_type": 1}, {"type": "nats"}])
def test_sink_type_is_needed(config):
    assert problem(config) == "sink_type: is missing; name the kind of sink, for example nats"


def test_an_unknown_sink_type_lists_the_known_ones():
    text = problem({"sink_type": "kafak"})
    assert text == f"sink_type: unknown sink_type 'kafak', did you mean kafka?; known: {', '.join(sorted(SINKS))}"


def test_an_unknown_key_lists_the_known_ones_of_pipeline_and_sink():
    text = problem({"sink_type": "memory", "colour": "red"})
    assert text == f"colour: unknown key; known: {', '.join(sorted([*OURS, 'name', 'timeout_ms']))}"


def test_a_misspelt_key_is_guessed():
    assert problem({"sink_type": "memory", "batchsize": 1}) == "batchsize: unknown key, did you mean batch_size?"
    assert problem({**NATS, "Streem": "x"}) == "Streem: unknown key, did you mean stream?"


WEBHOOK = {"sink_type": "webhook", "url": "https://example.com/x"}


def test_every_wrong_name_and_reference_is_told_at_once_with_the_nearest_name_on_its_own_level():
    text = problem(
        {**WEBHOOK, "batchsize": 1, "allow_htp": True, "auth": {"type": "bearer", "token": "t", "tokn": "x"},
         "headers": {"X-A": "${NAME}"}, "signing_secret": "${env:A"}
    )  # fmt: skip
    assert sorted(part.partition(":")[0] for part in text.split("; ")) == [
        "allow_htp", "auth.tokn", "batchsize", "headers.X-A", "signing_secret"
    ]  # fmt: skip
    assert "did you mean batch_size?" in text and "did you mean auth.token?" in text
    assert "did you mean allow_http?" in text


def test_of_very_many_wrong_keys_the_first_are_told_and_the_others_counted():
    text = problem({"sink_type": "memory"} | {f"batch_size{n}": 1 for n in range(50_000)})
    assert text.count("did you mean batch_size?") == 20 and text.endswith("and 49980 more; correct these first")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("${NAME}", "'${' is not a reference"),
        ("a ${env:NAME", "a '${' is not closed with '}'"),
        ("${env:${file:/etc/x}}", "references cannot be nested"),
        ("${file:secrets/x}", "give an absolute path"),
        ("${file:/etc/../x}", "give an absolute path"),
        ("${env:MY NAME}", "is no name of a variable"),
    ],
)
def test_a_reference_that_no_process_can_resolve_is_refused_before_there_is_one(value, said):
    for config in ({**NATS, "token": value}, {**WEBHOOK, "headers": {"X-A": value}}, {**NATS, "url": ["x", value]}):
        text = problem(config)
        assert said in text and text.count("; ") <= 1
    assert said in problem({"sink_type": "memory", "subject_template": value})


@pytest.mark.parametrize("host", ["10.1.2.3", "127.0.0.1", "[::1]", "localhost", "169.254.169.254", "192.168.0.9"])
def test_a_literal_address_that_no_worker_would_connect_to_is_refused(host):
    assert "is not a public address" in problem({**WEBHOOK, "url": f"https://{host}/x?token=${{env:TIDE_SECRET_T}}"})


def test_an_address_may_be_private_where_that_is_permitted_but_never_that_of_a_cloud_service():
    parse_forward({**WEBHOOK, "url": "https://10.1.2.3/x", "allow_private_network": True})
    parse_forward({**WEBHOOK, "url": "https://${env:TIDE_SECRET_HOST}/x"})
    assert "169.254.169.254" in problem({**WEBHOOK, "url": "https://169.254.169.254/x", "allow_private_network": True})
    aws = {"sink_type": "sqs", "queue_url": "https://169.254.169.254/1/q", "access_key_id": "a",
           "secret_access_key": "b"}  # fmt: skip
    assert problem(aws).startswith("queue_url: 169.254.169.254 is an address where no such service can be")


def test_a_missing_key_of_the_sink_is_named():
    assert "path: is missing" in problem({"sink_type": "file"})
    text = problem({"sink_type": "nats"})
    assert "url: is missing" in text
    assert "stream: is missing" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 10_001),
        ("batch_size", "many"),
        ("batch_size", 1.5),
        ("poll_interval_ms", 9),
        ("poll_interval_ms", 3_600_001),
        ("visibility_timeout_ms", 99),
        ("visibility_timeout_ms", 3_600_001),
        ("slice_ms", 9),
        ("slice_ms", 600_001),
        ("subject_template", 7),
        ("wire_format", "xml"),
        ("wire_format", 7),
        ("relay_group_id", ""),
        ("timeout_ms", 9),
        ("timeout_ms", "soon"),
    ],
)
def test_a_wrong_value_names_its_key(key, value):
    assert problem({"sink_type": "memory", key: value}).startswith(f"{key}: ")


def test_every_wrong_key_is_named_at_once():
    text = problem({"sink_type": "memory", "batch_size": 0, "slice_ms": 0, "colour": "red", "timeout_ms": 0})
    for key in ("batch_size", "slice_ms", "colour", "timeout_ms"):
        assert f"{key}: " in text


def test_an_unknown_wire_format_lists_the_known_ones():
    assert problem({"sink_type": "memory", "wire_format": "xml"}) == (
        "wire_format: unknown wire_format 'xml'; known: raw, envelope, cloudevents, cloudevents_structured, debezium"
    )


def test_a_template_with_an_unknown_variable_is_refused():
    text = problem({"sink_type": "memory", "subject_template": "a.{colour}"})
    assert text.startswith("subject_template: ")
    assert "colour" in text
    assert "{outbox}" in text or "outbox" in text


def test_a_slice_is_at_most_ten_leases():
    memory(slice_ms=10_000, visibility_timeout_ms=1000, timeout_ms=10)
    assert "slice_ms must not exceed ten times visibility_timeout_ms" in problem(
        {"sink_type": "memory", "slice_ms": 10_001, "visibility_timeout_ms": 1000}
    )


@pytest.mark.parametrize(("timeout_ms", "lease_ms"), [(30_000, 30_000), (5000, 1000)])
def test_a_publish_must_end_within_its_lease(timeout_ms, lease_ms):
    text = problem({"sink_type": "memory", "timeout_ms": timeout_ms, "visibility_timeout_ms": lease_ms})
    assert text.startswith(f"timeout_ms ({timeout_ms}) must be below visibility_timeout_ms ({lease_ms})")


@pytest.mark.parametrize(("lease_ms", "timeout_ms"), [(100, 50), (1000, 500), (20_000, 10_000), (60_000, 10_000)])
def test_the_default_timeout_is_at_most_half_the_lease(lease_ms, timeout_ms):
    config = memory(visibility_timeout_ms=lease_ms, slice_ms=100)
    assert config.sink.timeout_ms == timeout_ms


class TopicSink(MemorySink):
    """A sink that calls its subject a topic, as Kafka does."""

    features = replace(MemorySink.features, subject_key="topic", subject_aliases=("kafka_topic",))


class UrlSink(MemorySink):
    """A sink that cannot do without a subject, as the webhook cannot."""

    features = replace(MemorySink.features, subject_key="url", subject_required=True, default_subject="")


class TestASinksOwnNameOfTheSubject:
    @pytest.fixture(autouse=True)
    def _sinks(self, monkeypatch):
        for name, kind in (("topics", TopicSink), ("urls", UrlSink)):
            monkeypatch.setitem(SINKS, name, f"{__name__}:{kind.__name__}")

    @pytest.mark.parametrize("name", ["topic", "kafka_topic", "subject_template", "subject"])
    def test_every_name_means_the_subject_template(self, name):
        assert parse_forward({"sink_type": "topics", name: "a.{op}"}).subject_template == "a.{op}"

    def test_the_default_stays_the_sinks_own(self):
        assert parse_forward({"sink_type": "topics"}).subject_template == "{outbox}"

    def test_two_names_may_say_the_same(self):
        assert parse_forward({"sink_type": "topics", "topic": "a", "subject": "a"}).subject_template == "a"

    def test_two_names_that_disagree_are_refused(self):
        text = problem({"sink_type": "topics", "subject": "b", "topic": "a"})
        assert text == "subject: is another name for topic, with a different value; keep one of the two"
        text = problem({"sink_type": "memory", "subject": "b", "subject_template": "a"})
        assert text == "subject: is another name for subject_template, with a different value; keep one of the two"

    def test_errors_and_the_list_of_known_keys_show_the_sinks_name(self):
        assert problem({"sink_type": "topics", "topic": "{colour}"}).startswith("topic: template '{colour}'")
        text = problem({"sink_type": "topics", "topik": "a"})
        assert text == "topik: unknown key, did you mean topic?"
        text = problem({"sink_type": "topics", "zzz": "a"})
        assert "topic" in text.partition("known:")[2]
        assert "subject_template" not in text

    def test_a_sink_may_need_one(self):
        assert problem({"sink_type": "urls"}) == "url: is missing"
        assert problem({"sink_type": "urls", "url": None}) == "url: is missing"
        assert parse_forward({"sink_type": "urls", "url": "https://x/{key}"}).subject_template == "https://x/{key}"

    def test_another_sinks_name_is_unknown(self):
        assert problem({"sink_type": "topics", "url": "x"}).startswith("url: unknown key")


class TestSecrets:
    def test_references_are_allowed_in_strings_and_need_not_exist_where_they_are_only_checked(self):
        config = parse_forward({**NATS, "user": "u", "password": "${env:TIDE_SECRET_NOT_SET_ANYWHERE}"})
        assert config.sink.password == "${env:TIDE_SECRET_NOT_SET_ANYWHERE}"
        parse_forward({**NATS, "url": "nats://${env:TIDE_SECRET_NOT_SET_ANYWHERE}:4222", "token": "${file:/nowhere}"})

    def test_one_may_stand_in_a_template_and_for_a_format(self, monkeypatch):
        keys = {
            "sink_type": "memory",
            "subject_template": "${env:TIDE_SECRET_STAGE}.{op}",
            "wire_format": "${env:TIDE_SECRET_FORMAT}",
        }
        parse_forward(keys)
        assert "unknown variable {colour}" in problem(keys | {"subject_template": "${env:TIDE_SECRET_STAGE}.{colour}"})
        monkeypatch.setenv("TIDE_SECRET_STAGE", "test")
        monkeypatch.setenv("TIDE_SECRET_FORMAT", "raw")
        assert parse_forward(keys, resolved=True).subject_template == "test.{op}"
        monkeypatch.setenv("TIDE_SECRET_FORMAT", "xml")
        assert problem(keys, resolved=True).startswith("wire_format: unknown wire_format")

    def test_they_are_resolved_for_the_worker(self, monkeypatch):
        monkeypatch.setenv("TIDE_SECRET_NATS_PASSWORD", "s3cr3t-value")
        config = parse_forward({**NATS, "user": "u", "password": "${env:TIDE_SECRET_NATS_PASSWORD}"}, resolved=True)
        assert config.sink.password == "s3cr3t-value"

    def test_one_that_is_missing_names_key_and_reference(self):
        text = problem({**NATS, "token": "${env:TIDE_SECRET_NOT_SET_ANYWHERE}"}, resolved=True)
        assert "token: ${env:TIDE_SECRET_NOT_SET_ANYWHERE}" in text

    def test_values_are_not_shown_in_errors(self, monkeypatch):
        monkeypatch.setenv("TIDE_SECRET_SECRET", "hunter2-hunter2")
        for config in (
            {**NATS, "password": "${env:TIDE_SECRET_SECRET}"},
            {**NATS, "stream": "a ${env:TIDE_SECRET_SECRET}"},
            {**NATS, "url": ["${env:TIDE_SECRET_SECRET}", 7]},
            {"sink_type": "memory", "wire_format": "${env:TIDE_SECRET_SECRET}"},
            {"sink_type": "memory", "subject_template": "{${env:TIDE_SECRET_SECRET}}"},
        ):
            assert "hunter2" not in problem(config, resolved=True)

    def test_values_written_in_the_configuration_itself_are_not_shown_either(self):
        assert "hunter2" not in problem({**NATS, "password": "hunter2-hunter2", "replicas": "hunter2-hunter2"})

    def test_they_are_not_in_the_representation(self):
        config = parse_forward({**NATS, "url": "nats://u:hunter2@host", "user": "u", "password": "hunter2"})
        assert "hunter2" not in repr(config)
