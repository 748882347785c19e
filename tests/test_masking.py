"""No secret is in a text that was masked, and no such text is long."""

import base64
import html
import json
import signal
from urllib.parse import quote, quote_plus

import pytest

from relay import known_secrets
from relay.errors import ConfigError, NotConnected
from relay.known_secrets import remember, remember_login
from relay.masking import MOST_CHARACTERS, mask, mask_config, remember_config, remember_url
from relay.models import Failure


@pytest.fixture(autouse=True)
def _nothing_remembered():
    known_secrets.forget_all()


class Told(str):
    """A text in the middle of whose search a signal comes."""

    def __len__(self) -> int:
        signal.raise_signal(signal.SIGUSR1)
        return super().__len__()


@pytest.mark.timeout(20)
def test_a_handler_of_signals_may_mask_whatever_it_interrupts():
    remember("longer-secret")
    masked = []
    before = signal.signal(signal.SIGUSR1, lambda *_: masked.append(mask("a longer-secret b")))
    try:
        assert known_secrets.spans(Told("a longer-secret b")) == [(2, 15)]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert masked and set(masked) == {"a *** b"}


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
    monkeypatch.setattr(known_secrets, "FORMS_LIMIT", 12)
    for number in range(50):
        remember(f"secret-{number}")
    assert mask("secret-0 secret-49") == "secret-0 ***"
    assert sum(map(len, known_secrets._by_start.values())) == 12


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


SECRET = 'pä"ss/w+0rd&<ü>'
"""Every character that an escape is for."""


def _shapes(secret):
    """name -> the secret as a server may give it back."""
    login = f"user:{secret}".encode()
    return {
        "itself": secret,
        "percent": quote(secret, safe=""),
        "percent in lower case": quote(secret, safe="").lower(),
        "percent in part": quote(secret),
        "query": quote_plus(secret),
        "percent twice": quote(quote(secret, safe=""), safe=""),
        "JSON": json.dumps(secret),
        "JSON in upper case": json.dumps(secret).replace("\\u00e4", "\\u00E4").replace("\\u00fc", "\\u00FC"),
        "JSON of PHP": json.dumps(secret).replace("/", "\\/"),
        "JSON of Go": json.dumps(secret).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
        "JSON in JSON": json.dumps(json.dumps({"sent": secret})),
        "HTML": html.escape(secret),
        "HTML by numbers": "".join(f"&#{ord(c)};&#x{ord(c):x};"[: len(f"&#{ord(c)};")] for c in secret),
        "JSON of HTML": json.dumps(html.escape(secret)),
        "Python": repr(secret),
        "Python's bytes": repr(secret.encode()),
        "hexadecimal": secret.encode().hex(),
        "upper hexadecimal": secret.encode().hex().upper(),
        "base64": base64.b64encode(secret.encode()).decode(),
        "base64 for URLs": base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
        **{f"base64 after {n} bytes": base64.b64encode(b"x" * n + login + b"yz").decode() for n in range(3)},
        "base64, escaped": quote(base64.b64encode(login).decode(), safe=""),
        "base64 in JSON of PHP": json.dumps(base64.b64encode(b"??" + login + b"??").decode()).replace("/", "\\/"),
        "PLAIN": base64.b64encode(b"\0user\0" + secret.encode()).decode(),
    }


@pytest.mark.parametrize("shape", _shapes(SECRET))
def test_a_secret_is_masked_in_every_form_in_which_it_comes_back(shape):
    shown = _shapes(SECRET)[shape]
    remember(SECRET)
    quotes = shown[0] if shown[0] in "'\"" else ""
    masked = mask(f"before {shown}, after")
    assert masked.startswith("before ") and masked.endswith(", after") and "***" in masked
    rest = masked.replace("before ", "").replace(", after", "").replace("***", "")
    assert len(rest) <= len('"{\\"sent\\": \\"\\"}"') + len(quotes), masked


@pytest.mark.parametrize("password", ["pw12", "kurz!", "a-longer-password"])
def test_both_halves_of_a_login_are_masked_together(password):
    remember_login("user", password)
    for sent in (f"user:{password}", f"\0user\0{password}"):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            assert mask(f"Basic {encode(sent.encode()).decode()} refused") in (
                "Basic *** refused",
                "Basic ***= refused",
            )
    assert mask(f"user '{password}'") == "user '***'"


def test_a_password_that_is_the_name_of_its_user_is_no_secret():
    remember_login("guest", "guest")
    assert mask("user 'guest' refused") == "user 'guest' refused"


def test_a_configuration_and_a_url_say_what_is_secret():
    remember_config(
        {"auth": {"user": "kim", "password": "in-a-config"}, "hosts": ["nats://u:in-a%2Flist@h"], "topic": "orders"}
    )
    remember_url("host=h user=u password='in a string'")
    assert mask(base64.b64encode(b"kim:in-a-config").decode().rstrip("=")) == "***"
    assert mask("in-a/list, in a string, orders") == "***, ***, orders"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("PGPASSWORD=pw", "PGPASSWORD=***"),
        ("password='not closed, because it was cut", "password=***"),
        ('{"token": "t0ken", "a": 1}', '{"token": ***, "a": 1}'),
        ("Authorization: Basic dTpw\r\nHost: h", "Authorization: ***\r\nHost: h"),
        ("{'proxy-authorization': 'Bearer abc'}", "{'proxy-authorization': '***'}"),
        ("x-amz-security-token:IQoJb3\n", "x-amz-security-token:***\n"),
        ("an invalid token: expected }", "an invalid token: expected }"),
    ],
)
def test_what_looks_like_a_secret_is_masked_by_its_place(text, masked):
    assert mask(text) == masked


@pytest.mark.parametrize("at", range(MOST_CHARACTERS - 200, MOST_CHARACTERS + 20, 7))
def test_a_text_is_cut_and_no_secret_is_cut_in_half(at):
    remember(SECRET)
    remember("another-secret")
    for shown in (SECRET, base64.b64encode(f"user:{SECRET}".encode()).decode(), quote(SECRET, safe="")):
        masked = mask("another-secret " * 3 + "." * at + shown + "x" * 100_000)
        assert len(masked) <= MOST_CHARACTERS
        assert masked.rstrip(")").endswith("characters")
        for length in range(3, len(shown)):
            assert shown[:length] not in masked
    assert mask(masked) == masked


@pytest.mark.parametrize("make", [ConfigError, NotConnected, lambda text: Failure(0, True, "code", text).reason])
def test_errors_and_failures_are_bounded_and_masked_whatever_they_are_made_of(make):
    remember("a-secret")
    text = str(make("key a-secret " + "a-" * 80_000))
    assert len(text) <= MOST_CHARACTERS
    assert text.startswith("key *** a-a-")
