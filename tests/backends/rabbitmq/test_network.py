"""RabbitMQ behind a network that cuts, half-closes and delays; and there and back again."""

from collections.abc import Iterator

import pytest

from relay.models import Received, Record
from tests.backends.rabbitmq.harness import RabbitmqHarness
from tests.backends.rabbitmq.source_harness import RabbitmqSourceHarness
from tests.backends.source_steps import Drainer, Inbox, messages
from tests.backends.source_steps import opened as opened_source
from tests.backends.steps import Limits, claims, deliver, opened, publish, records, within
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitmqServer


@pytest.fixture(scope="module")
def module_proxy(_rabbitmq: RabbitmqServer) -> Iterator[Proxy]:
    with Proxy(_rabbitmq.start().url) as proxy:
        yield proxy


@pytest.fixture
def proxy(module_proxy: Proxy) -> Iterator[Proxy]:
    yield module_proxy
    module_proxy.heal()


@pytest.fixture
def harness(rabbitmq_server: RabbitmqServer) -> RabbitmqHarness:
    return RabbitmqHarness(rabbitmq_server)


class TestASink:
    def test_that_is_cut_in_mid_batch_goes_on_where_it_was(self, harness: RabbitmqHarness, proxy: Proxy) -> None:
        batch = records(harness, 1, 1000, padding=600)
        with opened(harness, url=proxy.through(harness.broker.server.url)) as sink:
            proxy.cut_after(200_000)
            claimed = claims(sink, batch)
            assert claimed < set(range(1, 1001))
            assert claimed <= set(harness.ids())
            deliver(sink, batch)
        assert list(dict.fromkeys(harness.ids())) == list(range(1, 1001))

    def test_that_nobody_answers_gives_the_connection_up(self, harness: RabbitmqHarness, proxy: Proxy) -> None:
        batch = records(harness, 1, 10)
        with opened(harness, url=proxy.through(harness.broker.server.url), timeout_ms=500) as sink:
            proxy.half_close()
            within(Limits.moment_seconds + 2, lambda: deliver(sink, batch))
        assert set(harness.ids()) == set(range(1, 11))

    def test_that_is_delayed_loses_nothing(self, harness: RabbitmqHarness, proxy: Proxy) -> None:
        with opened(harness, url=proxy.through(harness.broker.server.url)) as sink:
            proxy.delay(0.05)
            assert publish(sink, records(harness, 1, 100)) == []
        assert harness.ids() == list(range(1, 101))


class TestASource:
    @pytest.mark.parametrize("trouble", ["cut", "half_close", "stall"])
    def test_that_loses_its_connection_receives_everything(
        self, rabbitmq_server: RabbitmqServer, proxy: Proxy, trouble: str
    ) -> None:
        harness = RabbitmqSourceHarness(rabbitmq_server, proxy)
        inbox = Inbox()
        harness.send(messages(1, 300))
        with opened_source(harness, timeout_ms=500) as source, Drainer(source, inbox) as drainer:
            drainer.wait_for(written=50)
            getattr(proxy, trouble)()
            if trouble == "stall":
                proxy.cut()
                proxy.heal()
            drainer.wait_for(written=300)
        assert inbox.numbers() == list(range(1, 301))


def test_what_the_sink_sends_the_source_receives(harness: RabbitmqHarness, rabbitmq_server: RabbitmqServer) -> None:
    headers = {"name": "Zoë 日本", "content-type": "text/plain", "empty": ""}
    sent = [
        Record(1, "orders:1", harness.subject, None, b"", {}),
        Record(2, "orders:2", harness.subject, "ключ", b"x" * 300_000, headers),
        Record(3, "orders:3", f"{harness.name}.日本", "", "🚀".encode(), {"x" * 255: "y" * 10_000}),
    ]
    with opened(harness) as sink:
        assert publish(sink, sent) == []
    source = RabbitmqSourceHarness(rabbitmq_server).make_source(queue=harness.name)
    source.open({})
    received: list[Received] = []
    while len(received) < len(sent):
        received += source.receive(10, 10)
    source.close()
    common = {"content-type": "application/json", "app-id": "tide-relay"}
    assert [(m.id, m.subject, m.key, m.body) for m in received] == [
        (r.dedup_id, r.subject, r.key, r.body) for r in sent
    ]
    assert [m.headers for m in received] == [common | record.headers for record in sent]
