import json
from typing import Any

import pytest
from pydantic import ValidationError

from relay.backends.redis.config import RedisSourceConfig
from relay.backends.redis.entry import received
from relay.models import Received


def entry(*texts: str | bytes, body_field: str | None = None) -> Received:
    fields = [text.encode() if isinstance(text, str) else text for text in texts]
    return received("orders", b"5-1", fields, body_field.encode() if body_field else None)


class TestEntriesOfTheSink:
    def test_are_read_as_they_were_sent(self) -> None:
        found = entry("body", "{}", "key", "ü", "header.a", "日本", "header.key", "k", "header.", "n")
        assert found == Received(
            "orders/5-1", b"{}", {"a": "日本", "key": "k", "": "n"}, "ü", "orders", "orders", "5-1", b"5-1"
        )

    def test_need_neither_key_nor_headers(self) -> None:
        found = entry("body", b"\x00\xff")
        assert (found.body, found.key, found.headers) == (b"\x00\xff", None, {})

    def test_with_nul_in_key_and_headers_are_rows_all_the_same(self) -> None:
        found = entry("body", "{}", "key", "a\0b", "header.type", "\0")
        assert (found.body, found.key, found.headers) == (b"{}", "YQBi", {"type": "AA=="})
        found = entry("payload", "{}", "key", "a\0b", "type", "\0", body_field="payload")
        assert (found.key, found.headers) == ("YQBi", {"type": "AA=="})


class TestEntriesOfOthers:
    @pytest.mark.parametrize("name", ["payload", "data", "message", "value"])
    def test_of_one_usual_field_are_its_value(self, name: str) -> None:
        assert entry(name, "[1]").body == b"[1]"

    def test_of_one_unusual_field_are_an_object(self) -> None:
        assert entry("temperature", "7").body == b'{"temperature":"7"}'

    def test_are_objects_of_texts(self) -> None:
        found = entry("data", "7", "name", 'Zoë "日本"')
        assert json.loads(found.body) == {"data": "7", "name": 'Zoë "日本"'}
        assert (found.key, found.headers) == (None, {})

    def test_with_a_body_and_foreign_fields_are_objects_too(self) -> None:
        assert json.loads(entry("body", "1", "user", "x").body) == {"body": "1", "user": "x"}

    def test_keep_a_name_that_comes_more_than_once(self) -> None:
        assert json.loads(entry("a", "1", "b", "2", "a", "1", "a", "3").body) == {"a": ["1", "1", "3"], "b": "2"}

    def test_keep_bytes_that_are_no_text(self) -> None:
        assert entry("a", b"\xff\xfe", "b", "1").body == b'{"a":"\xff\xfe","b":"1"}'

    def test_have_the_field_that_is_named_as_their_body(self) -> None:
        found = entry("payload", "{}", "type", "created", "key", "k", "raw", b"\xff", body_field="payload")
        assert (found.body, found.key, found.headers) == (b"{}", "k", {"type": "created", "raw": "\\xff"})

    def test_may_have_their_body_in_a_field_called_key(self) -> None:
        assert entry("key", "{}", "a", "b", body_field="key")[1:4] == (b"{}", {"a": "b"}, None)

    def test_without_the_field_that_is_named_are_read_as_all_others(self) -> None:
        assert entry("a", "1", "b", "2", body_field="payload").body == b'{"a":"1","b":"2"}'


class TestKeys:
    def config(self, **keys: Any) -> RedisSourceConfig:
        return RedisSourceConfig.model_validate({"url": "redis://h", "stream": "s"} | keys)

    @pytest.mark.parametrize("start", ["0", "$", "5", "5-1"])
    def test_a_group_may_start_there(self, start: str) -> None:
        assert self.config(start=start).start == start

    @pytest.mark.parametrize("keys", [{"start": ">"}, {"stream": ""}, {"group": ""}, {"claim_idle_ms": 0}, {"x": 1}])
    def test_what_cannot_work_is_refused(self, keys: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            self.config(**keys)

    def test_both_spellings_are_accepted(self) -> None:
        made = RedisSourceConfig.model_validate({"redis_url": "redis://h", "redis_stream": "s", "consumer_group": "g"})
        assert (made.url, made.stream, made.group) == (["redis://h"], "s", "g")
