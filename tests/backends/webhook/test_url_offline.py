"""Which URLs and which hosts a webhook may have. No services."""

import ipaddress

import pytest

from relay.backends.common.addresses import ipv4_at, literal, may_reach, text_of
from relay.backends.webhook.url import UrlTemplate
from relay.errors import ConfigError
from relay.models import Record
from relay.pipelines.config import parse_forward


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
        ("networks", "by_default", "allowed"),
        [(PRIVATE, False, True), (NEVER, False, False), (PUBLIC, True, True)],
        ids=["private", "never", "public"],
    )
    def test_are_known(self, networks: str, by_default: bool, allowed: bool) -> None:
        for block in map(ipaddress.ip_network, networks.split()):
            for address in (block[0], block[-1]):
                assert may_reach(address, allow_private=False) is by_default, address
                assert may_reach(address, allow_private=True) is allowed, address


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


class TestTheTextOfAnAddress:
    """It is the same in every Python, whose own texts differ."""

    @pytest.mark.parametrize(
        ("address", "text"),
        [
            ("::FFFF:127.0.0.1", "::ffff:7f00:1"),
            ("::ffff:0.0.0.1", "::ffff:0:1"),
            ("::ffff:a9fe:a9fe%eth0", "::ffff:a9fe:a9fe%eth0"),
            ("::127.0.0.1", "::7f00:1"),
            ("64:ff9b::8.8.8.8", "64:ff9b::808:808"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("127.0.0.1", "127.0.0.1"),
        ],
    )
    def test_is_one(self, address: str, text: str) -> None:
        assert text_of(ipaddress.ip_address(address)) == text

    def test_is_that_of_a_literal_host(self) -> None:
        assert literal("[::FFFF:127.0.0.1]") == "::ffff:7f00:1"


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
            ("[::ffff:127.0.0.1]", "https://[::ffff:7f00:1]"),
            ("a" * 63 + ".test", f"https://{'a' * 63}.test"),
            ("bücher.test", "https://xn--bcher-kva.test"),
        ],
    )
    def test_have_one_form(self, host: str, origin: str) -> None:
        assert str(UrlTemplate(f"https://{host}/").origin) == origin
