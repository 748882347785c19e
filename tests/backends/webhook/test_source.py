import inspect
import socket
from contextlib import ExitStack
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
from relay.web.webhooks.limits import ArrivalRoom, Arriving, RateLimit, Room, peer_of, worst_first


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
    def test_is_for_so_many_requests_and_no_inbox_gets_all(self) -> None:
        room = Room(most_requests=8, most_bytes=1000)
        with ExitStack() as stack:
            assert [stack.enter_context(room.place("a", 1)) for _ in range(7)] == [True] * 6 + [False]
            assert stack.enter_context(room.place("b", 1))
        with room.place("a", 1) as has_room:
            assert has_room, "nothing was given back"

    def test_is_for_so_many_bytes_and_no_inbox_gets_all(self) -> None:
        room = Room(most_requests=100, most_bytes=100)
        with room.place("a", 100) as whole, room.place("b", 1) as none:
            assert (whole, none) == (True, False)
        with room.place("a", 40) as first, room.place("a", 40) as second, room.place("b", 60) as other:
            assert (first, second, other) == (True, False, True)


class TestArrivalRoom:
    def test_when_full_drops_the_slowest_of_the_greediest(self) -> None:
        now, dropped = 0.0, list[str]()
        room = ArrivalRoom(most_bytes=100, clock=lambda: now)
        with ExitStack() as stack:

            def arrive(name: str, peer: str, hook: str, size: int) -> bool:
                one = stack.enter_context(room.arriving(peer, hook, lambda: dropped.append(name)))
                return room.grow(one, size)

            for number, (peer, hook) in enumerate([("1", "a"), ("2", "a"), ("2", "a"), ("2", "b")]):
                now = float(number)
                assert arrive(f"{peer}{hook}{number}", peer, hook, 25)
            now = 4.0
            assert arrive("new", "3", "a", 15), "a newcomer has done nothing wrong"
            assert dropped == ["2a1"]
            assert arrive("newer", "3", "a", 25)
            assert dropped == ["2a1", "1a0"], "the first peer now takes more than what is left of the second"
            now = 9.0
            assert not arrive("too large", "2", "c", 1000)
        assert room.bytes == 0

    def test_a_proxy_is_one_peer_and_its_slow_sender_is_found(self) -> None:
        held = [Arriving("proxy", "a", float(age), print, size=1000) for age in range(5)]
        quick = Arriving("proxy", "b", 4.9, print, size=5000)
        assert worst_first([quick, *held], 5.0)[:4] == held[:4]

    def test_an_attacker_with_all_addresses_of_a_network_is_one_peer(self) -> None:
        assert peer_of("2001:db8:1:2:3::1") == peer_of("2001:db8:1:2::9") != peer_of("2001:db8:1:3::1")
        assert peer_of("::ffff:192.0.2.1") == peer_of("192.0.2.1") == "192.0.2.1"


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
    from relay.web.listening import listen

    with listen(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
