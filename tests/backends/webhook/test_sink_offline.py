import inspect
import ipaddress
import ssl
import time
from typing import Any

import httpcore
import pytest
from pydantic import ValidationError

from relay.backends.common.addresses import ipv4_at, may_reach
from relay.backends.common.tls import tls_context
from relay.backends.webhook.client import CLIENT_ERRORS
from relay.backends.webhook.config import WebhookSinkConfig
from relay.backends.webhook.errors import ERRORS, retry_after_seconds, status_verdict
from relay.backends.webhook.lanes import Lanes
from relay.backends.webhook.sink import CONNECTION_CODES, WebhookSink
from relay.backends.webhook.url import UrlTemplate
from relay.errors import ConfigError
from relay.models import Failure, Record
from relay.pipelines.config import parse_forward


def config(**keys: Any) -> WebhookSinkConfig:
    return WebhookSinkConfig.model_validate({"url": "https://a.test/x"} | keys)


class TestKeys:
    @pytest.mark.parametrize("key", ["url", "webhook_url"])
    def test_both_spellings_are_accepted(self, key: str) -> None:
        assert WebhookSinkConfig.model_validate({key: "https://a.test/"}).url == "https://a.test/"

    @pytest.mark.parametrize(
        ("keys", "told"),
        [
            ({"url": "ftp://a/"}, "https://"),
            ({"url": "https:///x"}, "host"),
            ({"url": "http://a.test/"}, "allow_http"),
            ({"url": "https://user:pw@a.test/"}, "auth"),
            ({"url": "https://{key}.test/"}, "host"),
            ({"url": "https://a.test{key}"}, "host"),
            ({"url": "https://a.test:{key}/"}, "host"),
            ({"url": "{key}"}, "https://"),
            ({"url": ""}, "https://"),
            ({"url": "https://a.test:0/"}, "port"),
            ({"url": "https://a.test:70000/"}, "port"),
            ({"url": "https://a.test/#x"}, "fragment"),
            ({"url": "https://a.test/{nothing}"}, "nothing"),
            ({"url": "https://a.test/{key"}, "braces"),
            ({"method": "GET"}, "POST"),
            ({"headers": {"a b": "1"}}, "header"),
            ({"headers": {"a": "1\n2"}}, "line end"),
            ({"headers": {"Host": "b"}}, "relay itself"),
            ({"headers": {"Authorization": "x"}, "auth": {"type": "bearer", "token": "y"}}, "auth"),
            ({"auth": {"type": "digest"}}, "basic"),
            ({"auth": {"type": "basic", "user": "a:b", "password": "x"}}, "pattern"),
            ({"signing_secret": "whsec_?"}, "base64"),
            ({"signing_secrets": ["whsec_?"]}, "base64"),
            ({"signing_secret": ""}, "character"),
            ({"retry_on": [500]}, "499"),
            ({"max_in_flight": 0}, "greater"),
            ({"tls_cert": "/x"}, "each other"),
        ],
    )
    def test_what_cannot_work_is_refused(self, keys: dict[str, Any], told: str) -> None:
        with pytest.raises(ValidationError, match=told):
            config(**keys)

    def test_a_url_is_not_repeated_in_an_error(self) -> None:
        for url in ("https://a.test/hidden/{nothing}", "http://a.test/hidden", "https://u:hidden@a.test/"):
            with pytest.raises(ConfigError) as caught:
                parse_forward({"sink_type": "webhook", "url": url})
            assert "hidden" not in str(caught.value)
            assert "url" in str(caught.value)

    def test_references_are_checked_when_they_are_resolved(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = {
            "sink_type": "webhook",
            "url": "${env:TIDE_SECRET_HOOK_URL}",
            "signing_secret": "${env:TIDE_SECRET_HOOK_SECRET}",
        }
        parse_forward(keys)
        monkeypatch.setenv("TIDE_SECRET_HOOK_URL", "http://a.test/")
        monkeypatch.setenv("TIDE_SECRET_HOOK_SECRET", "whsec_dGV4dA==")
        with pytest.raises(ConfigError, match="allow_http"):
            parse_forward(keys, resolved=True)
        parse_forward(keys | {"allow_http": True}, resolved=True).make_sink("p")

    def test_secrets_are_not_in_its_text(self) -> None:
        made = config(
            url="https://a.test/hidden0",
            headers={"x": "hidden1"},
            signing_secret="hidden2",
            signing_secrets=["hidden3"],
            auth={"type": "basic", "user": "u", "password": "hidden4"},
        )
        assert "hidden" not in repr(made) + str(made)
        assert made.secrets == ["hidden2", "hidden3"]


class TestTls:
    def test_certificates_are_verified_unless_configured_otherwise(self) -> None:
        verifying, trusting = tls_context(config(), "here"), tls_context(config(tls_verify=False), "here")
        assert (verifying.verify_mode, verifying.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert (trusting.verify_mode, trusting.check_hostname) == (ssl.CERT_NONE, False)

    def test_a_file_that_cannot_be_read_is_named(self) -> None:
        with pytest.raises(ConfigError, match="tls_ca '/nowhere/file' cannot be read: No such file"):
            tls_context(config(tls_ca="/nowhere/file"), "here")


class TestTheUrl:
    @pytest.mark.parametrize(
        ("url", "origin", "host", "target"),
        [
            ("https://a.test", "https://a.test", "a.test", b"/"),
            ("HTTPS://A.test:443/x/", "https://a.test", "a.test", b"/x/"),
            ("https://a.test:8443?a=b", "https://a.test:8443", "a.test", b"/?a=b"),
            ("https://bücher.test/ü b%20", "https://xn--bcher-kva.test", "xn--bcher-kva.test", b"/%C3%BC%20b%20"),
            ("http://[::1]:80/", "http://[::1]", "::1", b"/"),
            ("https://a.test/a//b/../c/{{x}}", "https://a.test", "a.test", None),
            ("https://a.test/{{x}}", "https://a.test", "a.test", b"/%7Bx%7D"),
        ],
    )
    def test_is_taken_apart(self, url: str, origin: str, host: str, target: bytes | None) -> None:
        template = UrlTemplate(url)
        assert (str(template.origin), template.origin.host) == (origin, host)
        if target is not None:
            assert template.target(Record(1, "o:1", "s", None, b"", {})) == target

    @pytest.mark.parametrize("path", ["/{key}", "/x/{key}/y", "/.{key}", "/{key}{header.none}"])
    @pytest.mark.parametrize("key", [None, ".", ".."])
    def test_no_message_climbs_out_of_it(self, path: str, key: str | None) -> None:
        target = UrlTemplate(f"https://a.test{path}").target(Record(1, "o:1", "s", key, b"", {}))
        assert target is None or not {b".", b"..", b""} & set(target[1:].split(b"/"))

    def test_what_is_empty_in_the_query_is_empty(self) -> None:
        assert UrlTemplate("https://a.test/?k={key}").target(Record(1, "o:1", "s", None, b"", {})) == b"/?k="


class TestAddresses:
    PUBLIC = ("93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808")
    PRIVATE = (
        "127.0.0.1", "127.1.2.3", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "192.0.2.1", "198.18.0.1",
        "240.0.0.1", "::1", "fc00::1", "fd12::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::",
        "2001:0:4136:e378:8000:63bf:f5ff:fffe", "::127.0.0.1", "64:ff9b:1::808:808", "64:ff9b:1:a00::1:0:0",
        "2606:2800:220:1:0:5efe:a00:1", "2606:2800:220:1:200:5efe:7f00:1", "192.0.0.8", "192.88.99.1", "3fff::1",
        "fec0::1", "100::1", "5f00::1", "2001:2::1", "::ffff:0:10.0.0.1",
    )  # fmt: skip
    NEVER = (
        "169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fe80::1",
        "224.0.0.1", "ff02::1", "0.0.0.0", "::", "255.255.255.255", "0.1.2.3", "168.63.129.16", "100.100.100.200",
        "192.0.0.192", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
        "fd00:c1::a9fe:a9fe", "::ffff:168.63.129.16", "::a9fe:a9fe", "::ffff:0:a9fe:a9fe", "::ffff:0.0.0.0",
        "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1:0:a9:fea9:fe00:0", "64:ff9b:1::a9fe:a9fe",
        "2606:4700:a9fe:a9fe::", "2606:4700:a9:fea9:fe::", "2001:0:a9fe:a9fe::f7f7:f7f7", "2606:2800:220:1::a9fe:a9fe",
        "2606:2800:220:1:0:5efe:a9fe:101",
    )  # fmt: skip

    @pytest.mark.parametrize("address", PUBLIC)
    def test_of_the_public_network_may_be_reached(self, address: str) -> None:
        assert may_reach(ipaddress.ip_address(address), allow_private=False)

    @pytest.mark.parametrize("address", PRIVATE)
    def test_of_private_networks_only_if_allowed(self, address: str) -> None:
        assert not may_reach(ipaddress.ip_address(address), allow_private=False)
        assert may_reach(ipaddress.ip_address(address), allow_private=True)

    @pytest.mark.parametrize("address", NEVER)
    def test_of_the_link_of_many_and_of_nobody_never(self, address: str) -> None:
        assert not may_reach(ipaddress.ip_address(address), allow_private=False)
        assert not may_reach(ipaddress.ip_address(address), allow_private=True)


class TestTheRegistries:
    """Every block of IANA's registries of special-purpose addresses, by its first and last address."""

    PRIVATE = (
        "10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 172.16.0.0/12 192.0.0.0/29 192.0.0.8/32 192.0.0.9/32 192.0.0.10/32"
        " 192.0.0.170/31 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24"
        " 240.0.0.0/5 ::1/128 64:ff9b:1::10.0.0.0/104 100::/64 100:0:0:1::/64 2001:1::1/128 2001:1::2/128 2001:1::3/128"
        " 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28 2001:db8::/32 3fff::/20"
        " 5f00::/16 fc00::/8 fec0::/10"
    )
    NEVER = (
        "0.0.0.0/8 169.254.0.0/16 224.0.0.0/4 255.255.255.255/32 ::/128 fe80::/10 ff00::/8 fd00:ec2::/32"
        " ::ffff:169.254.0.0/112 64:ff9b::169.254.0.0/112 64:ff9b::224.0.0.0/100 2002:a9fe::/32 168.63.129.16/32"
        " 192.0.0.192/32 100.100.100.200/32 fd20:ce::254/128 fd00:c1::a9fe:a9fe/128 fd00:42::42/128"
        " fd00:a9fe:a9fe::1/128 ::ffff:168.63.129.16/128 64:ff9b::168.63.129.16/128 ::ffff:192.0.0.192/128"
        " ::ffff:100.100.100.200/128 2002:a83f:8110::/48"
    )
    PUBLIC = "192.31.196.0/24 192.52.193.0/24 192.175.48.0/24 2620:4f:8000::/48 64:ff9b::8.0.0.0/104 ::ffff:8.0.0.0/104"

    @pytest.mark.parametrize(
        ("network", "by_default", "allowed"),
        [
            *((network, False, True) for network in PRIVATE.split()),
            *((network, False, False) for network in NEVER.split()),
            *((network, True, True) for network in PUBLIC.split()),
        ],
    )
    def test_are_known(self, network: str, by_default: bool, allowed: bool) -> None:
        block = ipaddress.ip_network(network)
        for address in (block[0], block[-1]):
            assert may_reach(address, allow_private=False) is by_default
            assert may_reach(address, allow_private=True) is allowed


class TestAddressesInIpv6:
    @pytest.mark.parametrize(
        ("length", "address"),
        [  # the examples of RFC 6052, 2.4
            (32, "2001:db8:c000:221::"),
            (40, "2001:db8:1c0:2:21::"),
            (48, "2001:db8:122:c000:2:2100::"),
            (56, "2001:db8:122:3c0:0:221::"),
            (64, "2001:db8:122:344:c0:2:2100::"),
            (96, "2001:db8:122:344::192.0.2.33"),
        ],
    )
    def test_are_read_at_the_bits_of_their_prefix(self, length: int, address: str) -> None:
        assert str(ipv4_at(ipaddress.IPv6Address(address), length)) == "192.0.2.33"


class TestHosts:
    @pytest.mark.parametrize(
        ("host", "told"),
        [
            ("a" * 64 + ".test", "63 characters"),
            (".".join(["a" * 50] * 6), "253"),
            ("ü" * 64 + ".test", "DNS cannot hold"),
            ("a..test", "empty"),
            (".test", "empty"),
            ("a.test..", "empty"),
            ("ü..test", "DNS cannot hold"),
            ("evil.test\N{FULLWIDTH SOLIDUS}x", "letters, digits"),
            ("a.test\\", "letters, digits"),
            ("a%2etest", "letters, digits"),
            ("-a.test", "letters, digits"),
            ("127.1", "IPv4"),
            ("0177.0.0.1", "IPv4"),
            ("0x7f.0.0.1", "IPv4"),
            ("0x7f000001", "IPv4"),
            ("2130706433", "IPv4"),
            ("127.0.0.0x", "IPv4"),
            ("1.2.3.4.5", "IPv4"),
            ("256.1.1.1", "IPv4"),
            ("\N{FULLWIDTH DIGIT ONE}27.1", "IPv4"),
            ("[fe80::1%25eth0]", "zone"),
            ("[fe80::1%eth0]", "zone"),
            ("[::1::]", "IPv6"),
            ("[1.2.3.4]", "IPv6"),
            ("[]", "IPv6"),
            ("a.test:", "port"),
            ("a.test:0", "port"),
            ("a.test:65536", "port"),
            ("a.test:-1", "port"),
            ("a.test:\N{ARABIC-INDIC DIGIT EIGHT}0", "port"),
            ("u:hidden@a.test", "user or a password"),
            ("", "host"),
            ("::1", "host"),
        ],
    )
    def test_that_cannot_be_reached_are_named_when_they_are_configured(self, host: str, told: str) -> None:
        with pytest.raises(ConfigError, match=told) as caught:
            parse_forward({"sink_type": "webhook", "url": f"https://{host}/hidden"})
        assert "url" in str(caught.value)
        assert "hidden" not in str(caught.value)

    @pytest.mark.parametrize(
        ("host", "origin"),
        [
            ("A.Test.", "https://a.test"),
            ("my_service", "https://my_service"),
            ("a--b.test:0443", "https://a--b.test"),
            ("127.0.0.1.", "https://127.0.0.1"),
            ("[::FFFF:7F00:1]", "https://[::ffff:7f00:1]"),
            ("a" * 63 + ".test", f"https://{'a' * 63}.test"),
            ("bücher.test", "https://xn--bcher-kva.test"),
        ],
    )
    def test_have_one_form(self, host: str, origin: str) -> None:
        assert str(UrlTemplate(f"https://{host}/").origin) == origin


class TestTheTableOfErrors:
    def test_names_every_exception_of_the_client_and_none_besides(self) -> None:
        assert ERRORS.differences(httpcore) == set()
        theirs = [name for name in ERRORS.exceptions if name.startswith("httpcore.")]
        assert all(issubclass(getattr(httpcore, name.partition(".")[2]), CLIENT_ERRORS) for name in theirs)

    def test_makes_nothing_permanent_that_the_receiver_did_not_say(self) -> None:
        assert ERRORS.permanent == set()
        assert ERRORS.codes <= CONNECTION_CODES

    def test_tells_a_certificate_from_a_connection(self) -> None:
        error = httpcore.ConnectError("x")
        assert ERRORS.verdict(error) == (False, "not_connected")
        error.__cause__ = ssl.SSLCertVerificationError("x")
        assert ERRORS.verdict(error) == (False, "tls")

    def test_has_an_answer_for_every_status(self) -> None:
        delivered = [status for status in range(100, 600) if status_verdict(status, ()) is None]
        assert delivered == list(range(200, 300))
        permanent = {status for status in range(100, 600) if (status_verdict(status, ()) or (False,))[0]}
        assert permanent == set(range(400, 500)) - {408, 425, 429}
        assert status_verdict(401, [401]) == (False, "http_401")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("17", 17.0), (" 0 ", 0.0), ("99999999999999", 3600.0), ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed Oct 21 07:28:30 2015", 30.0), ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
        ("Wed Oct  7 07:28:30 2015", 0.0),
        ("Wed, 21 Oct 2015 07:28:30 -0000", 30.0), ("Wed, 21 Oct 2015 07:28:30", 30.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0), ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        (None, None), ("", None), ("-1", None), ("1.5", None), ("soon", None), ("١٧", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_retry_after_is_a_number_or_a_date_whatever_the_zone_of_the_worker(
    monkeypatch: pytest.MonkeyPatch, zone: str, value: str | None, seconds: float | None
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert retry_after_seconds(value, 1445412480.0) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


class TestLanes:
    def run(self, keys: str, bad: dict[int, bool]) -> tuple[list[int], dict[int, Failure]]:
        """What was sent, one at a time; `bad`: index -> permanent."""
        sent: list[int] = []

        def send(index: int) -> Failure | None:
            sent.append(index)
            return Failure(index, bad[index], "x", "x") if index in bad else None

        return sent, Lanes(keys).run(send, 1, None).failures

    def test_alone_everything_goes_in_order(self) -> None:
        assert self.run("abcab", {}) == ([0, 1, 2, 3, 4], {})

    def test_a_temporary_failure_stops_what_is_later(self) -> None:
        sent, failures = self.run("abcab", {2: False})
        assert sent == [0, 1, 2]
        assert {index: failure.code for index, failure in failures.items()} == {2: "x", 3: "not_sent", 4: "not_sent"}

    def test_a_permanent_one_does_not(self) -> None:
        sent, failures = self.run("aaab", {1: True})
        assert (sent, set(failures)) == ([0, 1, 2, 3], {1})

    def test_nothing_is_a_batch_too(self) -> None:
        assert self.run("", {}) == ([], {})

    def test_a_bug_comes_out(self) -> None:
        def send(_index: int) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            Lanes("ab").run(send, 1, None)


def test_importing_the_sink_needs_no_client_library() -> None:
    assert "httpcore" not in vars(inspect.getmodule(WebhookSink))
