import inspect
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import CollectorRegistry
from pydantic import ValidationError

from relay.backends.registry import source_class
from relay.backends.webhook.config import WebhookSourceConfig
from relay.backends.webhook.source import WebhookSource
from relay.errors import ConfigError
from relay.pipelines.config import parse_reverse
from relay.web import metrics as api_metrics
from relay.web.webhooks.limits import RateLimit, Room


def config(**keys: Any) -> WebhookSourceConfig:
    return WebhookSourceConfig.model_validate({"signing_secret": "x"} | keys)


class TestKeys:
    @pytest.mark.parametrize("path", ["shop/orders.v1", "/shop/orders.v1", "/hooks/shop/orders.v1"])
    def test_a_path_is_what_follows_hooks(self, path: str) -> None:
        assert config(path=path).path == "shop/orders.v1"

    @pytest.mark.parametrize("path", ["", "/", "a//b", "../x", "a/../b", ".", "a b", "a?b", "ü", "x" * 201, "a/"])
    def test_a_path_that_is_none_is_refused(self, path: str) -> None:
        with pytest.raises(ValidationError):
            config(path=path)

    @pytest.mark.parametrize(
        ("keys", "told"),
        [
            ({"signing_secret": None}, "signing_secret is missing"),
            ({"signing_secret": ""}, "character"),
            ({"signing_secret": "whsec_?"}, "base64"),
            ({"signing_secrets": ["whsec_?"]}, "base64"),
            ({"scheme": "none"}, "github"),
            ({"signature_header": "a b"}, "pattern"),
            ({"rate_limit": 0}, "greater"),
            ({"max_body_bytes": 0}, "greater"),
        ],
    )
    def test_what_cannot_work_is_refused(self, keys: dict[str, Any], told: str) -> None:
        with pytest.raises(ValidationError, match=told):
            config(**keys)

    def test_other_schemes_take_any_secret_and_references_are_left_alone(self) -> None:
        assert config(scheme="github", signing_secret="whsec_?").secrets == ("whsec_?",)
        parse_reverse({"source_type": "webhook", "signing_secret": "${env:NOWHERE}", "path": "${env:NOWHERE}"})

    def test_secrets_are_not_in_its_text(self) -> None:
        made = config(signing_secret="hidden1", signing_secrets=["hidden2", "hidden1"])
        assert "hidden" not in repr(made) + str(made)
        assert made.secrets == ("hidden1", "hidden2")


def test_nobody_drains_it() -> None:
    source = source_class("webhook")(config(), "shop")
    assert isinstance(source, WebhookSource)
    assert source.features.passive
    with pytest.raises(ConfigError, match="relay api"):
        source.open({})
    assert source.receive(1, 0) == []


def test_configuring_it_needs_no_library_of_the_api() -> None:
    assert not {"fastapi", "uvicorn", "starlette"} & vars(inspect.getmodule(WebhookSource)).keys()


class TestRateLimit:
    def test_lets_a_burst_pass_and_then_so_many_a_second(self) -> None:
        now = 0.0
        rate = RateLimit(2, lambda: now)
        assert [rate.take() for _ in range(3)] == [0, 0, 1]
        now = 0.5
        assert [rate.take() for _ in range(2)] == [0, 1]
        now = 100.0
        assert [rate.take() for _ in range(3)] == [0, 0, 1]

    def test_says_how_long_a_slow_one_takes(self) -> None:
        now = 0.0
        rate = RateLimit(0.1, lambda: now)
        assert [rate.take() for _ in range(2)] == [0, 10]
        now = 9.5
        assert rate.take() == 1


class TestRoom:
    @pytest.fixture
    def room(self) -> Iterator[Room]:
        room = Room(most_requests=2, most_bytes=10)
        yield room
        assert (room.requests, room.bytes) == (0, 0)

    def test_is_for_so_many_requests(self, room: Room) -> None:
        with room.place() as first, room.place() as second, room.place() as third:
            assert first
            assert second
            assert third is None

    def test_is_for_so_many_bytes(self, room: Room) -> None:
        with room.place() as first, room.place() as second:
            assert first
            assert second
            assert first.grow(6)
            assert not second.grow(5)
            assert second.grow(4)

    def test_is_given_back_when_something_goes_wrong(self, room: Room) -> None:
        def fail() -> None:
            with room.place() as place:
                assert place
                assert place.grow(5)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()


def test_the_table_of_metrics_lists_every_one() -> None:
    table = api_metrics.__doc__ or ""
    made = [
        one for one in vars(api_metrics.ApiMetrics(CollectorRegistry())).values() if isinstance(one, MetricWrapperBase)
    ]
    for metric in made:
        name = metric._name + ("_total" if metric._type == "counter" else "")
        assert f"\n{name} " in table
    assert table.count("\ntide_relay_api_") == len(made)


def test_answers_do_not_wait_for_acknowledgements_of_what_went_before() -> None:
    from relay.web.server import _listen

    with _listen(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
