"""Webhooks over TLS, with an authority of our own."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.errors import ConfigError
from tests.backends.steps import Limits, opened, publish, within
from tests.backends.webhook.harness import WebhookHarness, numbered
from tests.services.http_receiver import HttpReceiver


class Certificates:
    """An authority, and what it has signed. `made` by openssl."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca = folder / "ca.pem"
        self._openssl(f"req -x509 {_NEW_KEY} -keyout {folder}/ca.key -out {self.ca} -days 2 -subj /CN=authority")

    def sign(self, name: str, subject_alternative_name: str) -> tuple[Path, Path]:
        """Certificate and key."""
        cert, key, request, extension = (self._folder / f"{name}.{end}" for end in ("pem", "key", "csr", "ext"))
        extension.write_text(f"subjectAltName={subject_alternative_name}")
        self._openssl(f"req {_NEW_KEY} -keyout {key} -out {request} -subj /CN={name}")
        signed_by = f"-CA {self.ca} -CAkey {self._folder}/ca.key -CAcreateserial"
        self._openssl(f"x509 -req -in {request} {signed_by} -out {cert} -days 2 -extfile {extension}")
        return cert, key

    def _openssl(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True)


_NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"

Receivers = Callable[..., HttpReceiver]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_a_receiver_of_a_trusted_authority_is_delivered_to(
    certificates: Certificates, own_http_receiver: Receivers
) -> None:
    harness = WebhookHarness(own_http_receiver(tls=certificates.sign("good", "IP:127.0.0.1")))
    with opened(harness, tls_ca=str(certificates.ca), allow_http=False) as sink:
        assert publish(sink, numbered("a", "b", "c", "d")) == []
    assert len(harness.read_all()) == 4


@pytest.mark.parametrize(("signed_for", "trusted"), [("IP:127.0.0.1", False), ("DNS:other.test", True)])
def test_a_stranger_is_a_clear_error_for_a_person(
    certificates: Certificates, own_http_receiver: Receivers, signed_for: str, trusted: bool
) -> None:
    harness = WebhookHarness(own_http_receiver(tls=certificates.sign("server", signed_for)))
    sink = harness.make_sink(tls_ca=str(certificates.ca) if trusted else None)
    with pytest.raises(ConfigError, match="certificate verify failed"):
        within(Limits.moment_seconds, sink.open)
    with opened(harness, tls_verify=False) as trusting:
        assert publish(trusting, numbered(None)) == []


def test_our_certificate_is_shown_to_a_receiver_that_asks(
    certificates: Certificates, own_http_receiver: Receivers
) -> None:
    tls = (*certificates.sign("server", "IP:127.0.0.1"), certificates.ca)
    harness = WebhookHarness(own_http_receiver(tls=tls))
    cert, key = certificates.sign("client", "DNS:client")
    with opened(harness, tls_ca=str(certificates.ca), tls_cert=str(cert), tls_key=str(key)) as sink:
        assert publish(sink, numbered(None)) == []


def test_closing_ends_a_publish_that_waits_under_tls(certificates: Certificates, own_http_receiver: Receivers) -> None:
    from tests.backends.steps import claims, start
    from tests.services.http_receiver import Rule
    from tests.waiting import wait_until

    harness = WebhookHarness(own_http_receiver(tls=certificates.sign("slow", "IP:127.0.0.1")))
    harness.rule(Rule(delay_ms=60_000))
    sink = harness.make_sink(tls_ca=str(certificates.ca), timeout_ms=60_000)
    sink.open()
    claimed = start(lambda: claims(sink, numbered("a", "b")))
    wait_until(lambda: len(harness.requests()) == 2)
    within(Limits.moment_seconds, sink.close)
    assert claimed(Limits.moment_seconds) == set()
