"""The keys of SQS, its table of errors, and how a batch becomes requests."""

import inspect
from typing import Any

import botocore.session  # type: ignore[import-untyped]
import pytest
from pydantic import ValidationError

from relay.backends.registry import sink_class, source_class
from relay.backends.sqs.config import SqsKeys, SqsSinkConfig, SqsSourceConfig
from relay.backends.sqs.errors import CODES, ERRORS, entry_verdict
from relay.backends.sqs.sink import Outgoing, SqsSink
from relay.backends.sqs.source import SqsSource
from relay.models import Record

AMAZONS = "https://sqs.eu-central-1.amazonaws.com/123456789012/orders"


def config(**keys: Any) -> SqsSinkConfig:
    return SqsSinkConfig.model_validate({"queue_url": AMAZONS} | keys)


class TestKeys:
    @pytest.mark.parametrize("url", ["queue_url", "sqs_queue_url"])
    @pytest.mark.parametrize("group", ["message_group_id", "sqs_message_group_id"])
    def test_both_spellings_are_accepted(self, url: str, group: str) -> None:
        made = SqsSinkConfig.model_validate({url: AMAZONS, group: "{key}"})
        assert (made.queue_url, made.message_group_id) == (AMAZONS, "{key}")

    @pytest.mark.parametrize(
        "keys",
        [
            {"queue_url": "orders"},
            {"queue_url": "http://sqs.example.com/1/orders"},
            {"max_in_flight": 0},
            {"message_group_id": "{nothing}"},
            {"message_group_id": "{key"},
            {"queue": "x"},
        ],
    )
    def test_what_cannot_work_is_refused(self, keys: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            config(**keys)

    def test_a_reference_is_judged_when_it_is_resolved(self) -> None:
        assert config(queue_url="${env:QUEUE}", message_group_id="${env:GROUP}").queue_url

    @pytest.mark.parametrize("keys", [{"wait_time_seconds": 21}, {"wait_time_seconds": 0}, {"visibility_timeout": 0}])
    def test_a_source_keeps_to_the_limits_of_sqs(self, keys: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            SqsSourceConfig.model_validate({"queue_url": AMAZONS} | keys)

    @pytest.mark.parametrize(
        ("url", "region", "endpoint"),
        [
            (AMAZONS, "eu-central-1", None),
            ("https://sqs.us-gov-west-1.amazonaws.com/1/q", "us-gov-west-1", None),
            ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1", None),
            ("https://eu-west-1.queue.amazonaws.com/1/q", "eu-west-1", None),
            (
                "https://vpce-1-a.sqs.eu-west-1.vpce.amazonaws.com/1/q",
                "eu-west-1",
                "https://vpce-1-a.sqs.eu-west-1.vpce.amazonaws.com",
            ),
            ("http://localhost:4566/000000000000/q", None, "http://localhost:4566"),
        ],
    )
    def test_the_address_of_a_queue_says_region_and_endpoint(
        self, url: str, region: str | None, endpoint: str | None
    ) -> None:
        made = SqsKeys(queue_url=url).with_defaults()
        assert (made.region, made.endpoint_url) == (region, endpoint)

    def test_what_is_configured_goes_first(self) -> None:
        made = config(region="eu-west-3", endpoint_url="https://sqs.example.com").with_defaults()
        assert (made.region, made.endpoint_url) == ("eu-west-3", "https://sqs.example.com")

    def test_a_fifo_queue_is_known_by_its_name(self) -> None:
        assert config(queue_url=AMAZONS + ".fifo").is_fifo
        assert not config().is_fifo


class TestTheTableOfErrors:
    def test_names_every_error_that_the_service_defines(self) -> None:
        model = botocore.session.get_session().get_service_model("sqs")
        assert {shape.name for shape in model.error_shapes} <= set(" ".join(CODES.values()).split())

    def test_only_what_a_message_itself_does_wrong_is_permanent(self) -> None:
        assert ERRORS.permanent == {"bad_message", "too_large"}

    def test_the_older_spelling_of_a_code_is_known(self) -> None:
        assert entry_verdict("AWS.SimpleQueueService.NonExistentQueue", "") == (False, "no_queue")
        assert entry_verdict("Unheard", "") == (False, "rejected")

    def test_a_server_without_groups_is_no_fault_of_a_message(self) -> None:
        text = "The request include parameter that is not valid for this queue type"
        assert entry_verdict("InvalidParameterValue", text) == (False, "bad_config")


class TestRequests:
    """How a batch is cut, without a service."""

    def outgoing(self, sink: SqsSink, records: list[Record]) -> list[Outgoing]:
        from relay.backends.sqs.sink import Sending

        made = [sink._outgoing(n, record, Sending(None, len(records))) for n, record in enumerate(records)]  # type: ignore[arg-type]
        return [outgoing for outgoing in made if outgoing is not None]

    def records(self, *keys: str | None, body: bytes = b"{}") -> list[Record]:
        return [Record(n, f"orders:{n}", "", key, body, {}) for n, key in enumerate(keys, 1)]

    def test_ten_messages_go_together(self) -> None:
        sink = SqsSink(config(), "p")
        (lane, *others) = sink._lanes(self.outgoing(sink, self.records(*[None] * 25)))
        assert [len(request) for request in lane] == [10, 10, 5]
        assert all(other is lane for other in others)
        assert len(others) == 2

    def test_a_request_keeps_to_the_limit_of_its_size(self) -> None:
        sink = SqsSink(config(), "p")
        (lane, *_) = sink._lanes(self.outgoing(sink, self.records(*[None] * 5, body=b"x" * 400_000)))
        assert [len(request) for request in lane] == [2, 2, 1]

    def test_a_group_keeps_to_one_lane(self) -> None:
        sink = SqsSink(config(queue_url=AMAZONS + ".fifo"), "p")
        keys = [f"k{n % 7}" for n in range(100)]
        lanes = sink._lanes(self.outgoing(sink, self.records(*keys)))
        placed: dict[str, tuple[int, list[int]]] = {}
        for number, lane in enumerate(lanes):
            for request in lane:
                for outgoing in request:
                    lane_of_group, positions = placed.setdefault(outgoing.entry["MessageGroupId"], (number, []))
                    assert lane_of_group == number
                    positions.append(outgoing.position)
        assert all(positions == sorted(positions) for _, positions in placed.values())
        assert sum(len(positions) for _, positions in placed.values()) == 100
        assert len(lanes) > 1

    def test_strict_order_sends_one_message_of_a_group_in_a_request(self) -> None:
        sink = SqsSink(config(queue_url=AMAZONS + ".fifo", strict_order=True, max_in_flight=1), "p")
        (lane,) = sink._lanes(self.outgoing(sink, self.records("a", "b", "a", "c", "a")))
        assert [[outgoing.position for outgoing in request] for request in lane] == [[0, 1], [2, 3], [4]]

    def test_a_message_without_a_key_belongs_to_the_group_of_its_outbox(self) -> None:
        sink = SqsSink(config(queue_url=AMAZONS + ".fifo"), "p")
        groups = [o.entry["MessageGroupId"] for o in self.outgoing(sink, self.records("k", None, ""))]
        assert groups == ["k", "orders", "orders"]

    def test_a_standard_queue_has_groups_only_when_asked_for(self) -> None:
        plain = self.outgoing(SqsSink(config(), "p"), self.records("k"))
        fair = self.outgoing(SqsSink(config(message_group_id="{key}"), "p"), self.records("k", None))
        assert "MessageGroupId" not in plain[0].entry
        assert [outgoing.entry.get("MessageGroupId") for outgoing in fair] == ["k", None]
        assert "MessageDeduplicationId" not in fair[0].entry


def test_they_are_the_ones_of_the_tables() -> None:
    assert (sink_class("sqs"), source_class("sqs")) == (SqsSink, SqsSource)


@pytest.mark.parametrize("kind", [SqsSink, SqsSource])
def test_importing_them_needs_no_client_library(kind: type) -> None:
    assert not {"boto3", "botocore"} & vars(inspect.getmodule(kind)).keys()
