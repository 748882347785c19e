"""No secret is in a text that was masked."""

import pytest

from relay import masking
from relay.masking import mask, mask_config, remember


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(masking, "_remembered", type(masking._remembered)())


def test_the_longer_of_two_secrets_is_masked_whole():
    remember("longer-secret")
    remember("longer-secret-suffix")
    assert mask("a longer-secret-suffix b longer-secret") == "a *** b ***"


def test_a_short_value_is_masked_only_where_it_stands_alone():
    remember("on")
    remember("main")
    assert mask("connection on") == "connection on"
    assert mask("domain main, user 'main'") == "domain ***, user '***'"


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr(masking, "REMEMBERED_LIMIT", 3)
    for number in range(5):
        remember(f"secret-{number}")
    assert mask("secret-0 secret-4") == "secret-0 ***"
    assert len(masking._remembered) == 3


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://u:pw@h:5432/db?x=1", "postgresql://u:***@h:5432/db?x=1"),
        ("redis://:pw@h/0", "redis://:***@h/0"),
        ("amqp://u:p@ss@h", "amqp://u:***@h"),
        ("tried nats://u:p1@a:1, nats://u:p2@b:2", "tried nats://u:***@a:1, nats://u:***@b:2"),
        ("nats://token@h:4222", "nats://***@h:4222"),
        ("postgresql://user@h/db", "postgresql://user@h/db"),
        ("http://h:80/a@b", "http://h:80/a@b"),
        ("mail a@b, 10:30", "mail a@b, 10:30"),
        ("host=h password=pw dbname=d", "host=h password=*** dbname=d"),
        (r"password = 'p w\'x' user=u", "password = *** user=u"),
        ("https://h/x?user=u&password=pw&y=1", "https://h/x?user=u&password=***&y=1"),
        ("(sslpassword=pw)", "(sslpassword=***)"),
        ("no password here", "no password here"),
    ],
)
def test_passwords_are_masked_by_their_place(text, masked):
    assert mask(text) == masked


def test_a_listing_shows_references_and_no_secrets():
    assert mask_config(
        {
            "sink_type": "nats",
            "url": "nats://u:pw@h",
            "password": "pw",
            "nkey_seed": "${env:SEED}",
            "token": "Bearer ${env:TOKEN}",
            "pin_secret": 1234,
            "credentials": {"user": "u", "nested": ["a", None, True]},
            "credentials_file": "/run/nats.creds",
            "headers": {"Authorization": "Basic abc", "X-Api-Key": "k", "Accept": "json"},
            "subject_template": "orders.{key}",
            "batch_size": 100,
        }
    ) == {
        "sink_type": "nats",
        "url": "nats://u:***@h",
        "password": "***",
        "nkey_seed": "${env:SEED}",
        "token": "***${env:TOKEN}",
        "pin_secret": "***",
        "credentials": {"user": "***", "nested": ["***", None, True]},
        "credentials_file": "/run/nats.creds",
        "headers": {"Authorization": "***", "X-Api-Key": "***", "Accept": "json"},
        "subject_template": "orders.{key}",
        "batch_size": 100,
    }
