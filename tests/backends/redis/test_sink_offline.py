from typing import Any

import pytest
import redis.exceptions
from pydantic import ValidationError

from relay.backends.redis.config import RedisSinkConfig
from relay.backends.redis.entry import add_command, largest_text_bytes
from relay.backends.redis.sink import Chunk, _outcome
from relay.models import Record
from relay.pipelines.config import parse_forward

RECORD = Record(7, "orders:7", "s", None, b"1", {})


def config(**keys: Any) -> RedisSinkConfig:
    return RedisSinkConfig.model_validate({"url": "redis://localhost"} | keys)


class TestTheCommand:
    def test_adds_an_entry(self) -> None:
        record = RECORD._replace(key="ü", headers={"a": "b"})
        assert add_command(record, config()) == [
            "XADD", "s", "*", "body", b"1", "key", "ü", "header.a", "b", "header.relay-id", "orders:7",
        ]  # fmt: skip

    def test_has_the_id_of_the_message_when_asked_for(self) -> None:
        assert add_command(RECORD, config(exactly_once=True))[2] == "7-0"

    @pytest.mark.parametrize(("approximate", "sign"), [(True, "~"), (False, "=")])
    def test_trims_when_asked_for(self, approximate: bool, sign: str) -> None:
        found = add_command(RECORD, config(maxlen=9, approximate=approximate))
        assert found[:6] == ["XADD", "s", "MAXLEN", sign, "9", "*"]

    def test_tells_an_empty_key_from_none(self) -> None:
        assert add_command(RECORD._replace(key=""), config())[5:7] == ["key", ""]
        assert "key" not in add_command(RECORD, config())

    def test_has_the_dedup_id_once(self) -> None:
        record = RECORD._replace(headers={"relay-id": "orders:7"})
        assert add_command(record, config()).count("header.relay-id") == 1


@pytest.mark.parametrize(
    ("change", "size"),
    [
        ({}, 8),
        ({"body": b"x" * 100}, 100),
        ({"key": "日" * 100}, 300),
        ({"headers": {"a": "日" * 100}}, 300),
        ({"headers": {"n" * 200: "a"}}, 207),
    ],
)
def test_the_longest_text_counts_as_the_server_counts_it(change: dict[str, Any], size: int) -> None:
    assert largest_text_bytes(RECORD._replace(body=b"12345678")._replace(**change)) == size


class TestATransaction:
    def outcome(self, queued: list[Any], executed: Any) -> dict[int, tuple[bool, str]]:
        chunk: Chunk = dict.fromkeys(range(len(queued)), (RECORD, []))
        failures, refused = _outcome(chunk, queued, executed)
        assert not refused
        return {index: (failure.permanent, failure.code) for index, failure in failures.items()}

    def test_fails_whole_and_for_now_when_one_command_is_refused(self) -> None:
        queued = [b"QUEUED", redis.exceptions.ResponseError("Elements are too large to be stored"), b"QUEUED"]
        aborted = redis.exceptions.ExecAbortError("Transaction discarded because of previous errors.")
        assert self.outcome(queued, aborted) == dict.fromkeys(range(3), (False, "too_large"))

    def test_fails_in_part_when_one_entry_is(self) -> None:
        executed = [b"1-0", redis.exceptions.ResponseError("Elements are too large to be stored"), b"3-0"]
        assert self.outcome([b"QUEUED"] * 3, executed) == {1: (True, "too_large")}


class TestKeys:
    @pytest.mark.parametrize("name", ["stream", "redis_stream", "subject_template", "subject"])
    def test_the_stream_is_a_template(self, name: str) -> None:
        made = parse_forward({"sink_type": "redis", "redis_url": "redis://h", name: "{outbox}.{op}"})
        assert made.subject_template == "{outbox}.{op}"

    def test_the_stream_is_called_as_the_outbox_unless_named(self) -> None:
        assert parse_forward({"sink_type": "redis", "url": "redis://h"}).subject_template == "{outbox}"

    @pytest.mark.parametrize("keys", [{"maxlen": 0}, {"wait_replicas": -1}, {"exactly": True}])
    def test_what_cannot_work_is_refused(self, keys: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            config(**keys)
