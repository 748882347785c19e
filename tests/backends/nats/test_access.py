"""Who may connect to NATS, and how: credentials, permissions, TLS."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import nkeys
import pytest

from relay.errors import ConfigError, NotConnected
from tests.backends.nats.harness import NatsHarness
from tests.backends.steps import opened, publish

Configured = Callable[..., NatsHarness]


class TestWhoWeAre:
    def test_a_token(self, configured_nats: Configured) -> None:
        harness = configured_nats(authorization={"token": "s3cret-token"})
        with pytest.raises(ConfigError, match=r"(?i)authorization violation"):
            harness.make_sink(url=anonymous(harness)).open()
        sink = harness.make_sink(url=anonymous(harness), token="s3cret-token")
        sink.open()
        sink.close()

    def test_an_nkey(self, configured_nats: Configured) -> None:
        seed = nkeys.encode_seed(b"0" * 32, nkeys.PREFIX_BYTE_USER)
        public = nkeys.from_seed(bytearray(seed)).public_key.decode()
        harness = configured_nats(authorization={"users": [{"nkey": public}]})
        sink = harness.make_sink(url=anonymous(harness), nkey_seed=seed.decode())
        sink.open()
        sink.close()
        broken = harness.make_sink(url=anonymous(harness), nkey_seed="SUnonsense")
        with pytest.raises(ConfigError) as caught:
            broken.open()
        assert "nonsense" not in str(caught.value)
        broken.close()

    def test_what_is_not_permitted_is_said_at_once(self, configured_nats: Configured) -> None:
        permissions = {"publish": {"allow": ["$JS.API.>"]}, "subscribe": "_INBOX.>"}
        harness = configured_nats(authorization={"users": [limited(permissions)]})
        with (
            opened(harness, user="limited", password="p", url=anonymous(harness)) as sink,
            pytest.raises(NotConnected, match="permissions violation") as caught,
        ):
            publish(sink, harness.records("a"))
        assert caught.value.code == "forbidden"

    def test_a_forbidden_inbox_is_a_matter_of_configuration(self, configured_nats: Configured) -> None:
        harness = configured_nats(authorization={"users": [limited({"publish": ">", "subscribe": "nothing"})]})
        sink = harness.make_sink(user="limited", password="p", url=anonymous(harness), timeout_ms=500)
        with pytest.raises(ConfigError, match="permissions violation"):
            sink.open()


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> dict[str, str]:
        cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
        command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 2 -subj /CN=nats"
        subprocess.run(
            [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True, timeout=60
        )
        return {"cert_file": cert, "key_file": key}

    def test_a_certificate_must_be_trusted(self, configured_nats: Configured, certificate: dict[str, str]) -> None:
        harness = configured_nats(tls=certificate)
        with pytest.raises(ConfigError, match=r"(?i)certificate verify failed"):
            harness.make_sink().open()
        for trusting in ({"tls_ca": certificate["cert_file"]}, {"tls_verify": False}):
            with opened(harness, **trusting) as sink:
                assert publish(sink, harness.records("a")) == []

    def test_a_client_certificate_is_shown_where_the_server_wants_one(
        self, configured_nats: Configured, certificate: dict[str, str]
    ) -> None:
        harness = configured_nats(tls=certificate | {"ca_file": certificate["cert_file"], "verify": True})
        ours = {"tls_cert": certificate["cert_file"], "tls_key": certificate["key_file"]}
        with opened(harness, tls_ca=certificate["cert_file"], **ours) as sink:
            assert publish(sink, harness.records("a")) == []
        with pytest.raises((ConfigError, NotConnected)):
            harness.make_sink(tls_ca=certificate["cert_file"], timeout_ms=2000).open()

    def test_a_server_that_begins_with_tls(self, configured_nats: Configured, certificate: dict[str, str]) -> None:
        harness = configured_nats(tls=certificate | {"handshake_first": "300ms"})
        with opened(harness, tls_ca=certificate["cert_file"], tls_first=True) as sink:
            assert publish(sink, harness.records("a")) == []

    def test_a_server_without_tls_is_refused_when_tls_is_asked_for(self, nats_harness: NatsHarness) -> None:
        with pytest.raises(ConfigError, match="no TLS"):
            nats_harness.make_sink(tls_verify=False).open()


def anonymous(harness: NatsHarness) -> str:
    """The server's URL without user and password."""
    return "nats://" + str(harness.config()["url"]).partition("@")[2]


def limited(permissions: Mapping[str, object]) -> dict[str, object]:
    return {"user": "limited", "password": "p", "permissions": permissions}
