"""What is said of a broker URL before anything connects."""

import sys

import pytest

from relay.broker.factory import make_broker
from relay.errors import ConfigError, MissingExtra


@pytest.mark.parametrize("url", ["kafka://user:hidden-pw@host", "localhost:6379", "", "redis://host:port"])
def test_a_url_that_names_no_broker_is_refused_without_its_password(url):
    with pytest.raises(ConfigError, match="broker URL") as caught:
        make_broker(url)
    assert "hidden-pw" not in str(caught.value)


def test_rabbitmq_without_its_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pika", None)
    monkeypatch.setitem(sys.modules, "pika.exceptions", None)
    monkeypatch.delitem(sys.modules, "relay.broker.rabbitmq", raising=False)
    with pytest.raises(MissingExtra, match=r"tide-relay\[rabbitmq-broker\]"):
        make_broker("amqp://localhost")
