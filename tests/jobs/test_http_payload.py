"""What an HTTP job may say: the same for the application that enqueues it, and for the worker that sends it."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from relay import reach
from relay.errors import ConfigError
from relay.jobs.errors import BadArguments
from relay.jobs.http import BadHttpJob, Hosts, HttpKeys, check_http_payload, read_http_job
from relay.reach import Reach

URL = "https://a.test/x"


@pytest.mark.parametrize(
    ("payload", "headers", "code", "told"),
    [
        ({}, None, "bad_url", "url must be a text"),
        ({"url": 1}, None, "bad_url", "url must be a text"),
        ({"url": "ftp://hidden/"}, None, "bad_url", "https://"),
        ({"url": "https://user:hidden@a.test/"}, None, "bad_url", "password"),
        ({"url": "https://a.test/hidden#x"}, None, "bad_url", "fragment"),
        ({"url": "https://127.1/hidden"}, None, "bad_url", "IPv4"),
        ({"url": "https://a.test:0/hidden"}, None, "bad_url", "port"),
        ({"url": f"https://a.test/{'h' * 16_384}"}, None, "bad_url", "16384"),
        ({"url": "https://{x}.test/hidden"}, None, "bad_url", "host"),
        ({"url": URL, "body": "hidden"}, None, "bad_payload", "unknown key 'body'; known: url, method, json"),
        ({"url": URL, "method": "CONNECT"}, None, "bad_payload", "GET, HEAD, POST"),
        ({"url": URL, "method": 1}, None, "bad_payload", "method"),
        ({"url": URL, "text": 1}, None, "bad_payload", "text must be a text"),
        ({"url": URL, "base64": "hidden!++"}, None, "bad_payload", "not base64"),
        ({"url": URL, "base64": "hiddené"}, None, "bad_payload", "not base64"),
        ({"url": URL, "json": "hidden", "text": "hidden"}, None, "bad_payload", "json and text"),
        ({"url": URL, "json": "hidden", "method": "get"}, None, "bad_payload", "GET has no body"),
        ({"url": URL}, {"a b": "hidden"}, "bad_header", "name of a header"),
        ({"url": URL}, {"a": "hidden\r\nb: 1"}, "bad_header", "line end"),
        ({"url": URL}, {"a\r\nb": "hidden"}, "bad_header", "name of a header"),
        ({"url": URL}, {"HOST": "hidden"}, "bad_header", "relay itself"),
        ({"url": URL}, {"Content-Length": "1"}, "bad_header", "relay itself"),
        ({"url": URL}, {"Transfer-Encoding": "chunked"}, "bad_header", "relay itself"),
        ({"url": URL}, {"Connection": "close"}, "bad_header", "relay itself"),
        ({"url": URL}, {"webhook-signature": "hidden"}, "bad_header", "relay itself"),
        ({"url": URL}, {"X-PgRelay-Job-Id": "hidden"}, "bad_header", "relay itself"),
        ({"url": URL}, {"a": 1}, "bad_header", "'a' must be a text"),
        ({"url": URL}, {"a": "${env:TIDE_SECRET_HIDDEN}"}, "bad_header", "names a secret"),
        ({"url": URL}, {f"a{n}": "" for n in range(65)}, "bad_header", "64"),
        ({"url": URL}, {"a": "h" * 16_384}, "bad_header", "16384"),
    ],
)
def test_what_cannot_be_sent_is_refused_and_not_repeated(
    payload: dict[str, Any], headers: dict[str, Any] | None, code: str, told: str
) -> None:
    for check in (
        lambda: check_http_payload(payload, headers),
        lambda: read_http_job(json.dumps(payload), json.dumps(headers) if headers else None),
    ):
        with pytest.raises(BadHttpJob, match=told) as caught:
            check()
        assert caught.value.code == code
        assert isinstance(caught.value, BadArguments)
        assert "hidden" not in str(caught.value).lower()


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "[::ffff:169.254.169.254]", "100.100.100.200", "[fd00:ec2::254]", "0.0.0.0",
     "224.0.0.1", "[fe80::1]"],
)  # fmt: skip
def test_an_address_that_no_queue_can_permit_is_refused_before_it_is_enqueued(host: str) -> None:
    with pytest.raises(BadHttpJob, match="not a public address; no request may go there") as caught:
        check_http_payload({"url": f"https://{host}/"})
    assert caught.value.code == "forbidden_address"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.1.2.3", "[fd12::1]", "8.8.8.8", "name.test"])
def test_whether_a_private_address_may_be_reached_is_for_the_queue_to_say(host: str) -> None:
    assert check_http_payload({"url": f"https://{host}/"}) == host.strip("[]")


@pytest.mark.parametrize("payload", ["[]", "1", "null", '{"url": ', "[" * 100_000, ""])
def test_what_is_no_object_is_refused(payload: str) -> None:
    with pytest.raises(BadHttpJob, match="must be an object"):
        read_http_job(payload, None)


@pytest.mark.parametrize("headers", ["[]", "1", '"x"'])
def test_headers_are_an_object(headers: str) -> None:
    with pytest.raises(BadHttpJob, match="headers must be an object"):
        read_http_job('{"url": "https://a.test/"}', headers)


def test_half_a_surrogate_pair_is_refused_where_python_can_hold_it() -> None:
    for payload, headers in (({"url": URL + "\ud800"}, {}), ({"url": URL, "text": "\ud800"}, {}),
                             ({"url": URL}, {"a": "\ud800"})):  # fmt: skip
        with pytest.raises(BadHttpJob, match="half a surrogate pair"):
            check_http_payload(payload, headers)


@pytest.mark.parametrize(
    ("payload", "method", "body", "content_type"),
    [
        ('{"url": "U"}', "POST", b"", None),
        ('{"url": "U", "method": "get"}', "GET", None, None),
        ('{"url": "U", "method": "DELETE"}', "DELETE", None, None),
        ('{"url": "U", "json": null}', "POST", b"null", b"application/json"),
        ('{"url": "U", "text": "\\u00e9"}', "POST", b"\xc3\xa9", b"text/plain; charset=utf-8"),
        ('{"url": "U", "base64": "AP8="}', "POST", b"\0\xff", b"application/octet-stream"),
        # As it stands: no digit is lost, no member either.
        ('{"url": "U", "json": {"n": 1.00000000000000000001, "n": 2}}', "POST",
         b'{"n": 1.00000000000000000001, "n": 2}', b"application/json"),
    ],
)  # fmt: skip
def test_a_payload_is_a_request(payload: str, method: str, body: bytes | None, content_type: bytes | None) -> None:
    request = read_http_job(payload.replace("U", "https://A.test:8443/ü?q=1 2"), None)
    assert (request.method, request.body, request.content_type) == (method, body, content_type)
    assert (str(request.origin), request.target) == ("https://a.test:8443", b"/%C3%BC?q=1%202")


@pytest.mark.parametrize(
    ("patterns", "host", "allowed"),
    [
        ((), "a.test", True),
        (("a.test",), "a.test", True),
        (("A.Test.",), "a.test", True),
        (("bücher.test",), "xn--bcher-kva.test", True),
        (("a.test",), "b.a.test", False),
        (("*.a.test",), "b.a.test", True),
        (("*.a.test",), "c.b.a.test", True),
        (("*.a.test",), "a.test", False),
        (("*.a.test",), "evila.test", False),
        (("a.test",), "a.test.evil.test", False),
        (("x.test", "*.a.test"), "b.test", False),
        (("127.0.0.1", "::1"), "::1", True),
    ],
)
def test_hosts_are_named_one_by_one_or_as_all_below_one(patterns: tuple[str, ...], host: str, allowed: bool) -> None:
    assert Hosts(patterns).allow(host) is allowed
    origin = read_http_job(json.dumps({"url": f"https://{f'[{host}]' if ':' in host else host}/"}), None).origin
    reach.put_in_force(Reach(job_http_hosts=patterns))
    if allowed:
        assert check_http_payload({"url": str(origin)}) == host
    else:
        with pytest.raises(BadHttpJob, match="RELAY_JOB_HTTP_HOSTS"):
            check_http_payload({"url": str(origin)})


@pytest.mark.parametrize("pattern", ["", "*", "a.*.test", "*a.test", "https://a.test", "a.test:80", "a test"])
def test_what_is_no_host_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="host"):
        Hosts([pattern])


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"headers": {"X-Key": "hidden"}}, "set hosts"),
        ({"auth": {"type": "bearer", "token": "hidden"}}, "set hosts"),
        ({"tls_cert": "/hidden", "tls_key": "/hidden"}, "set hosts"),
        ({"hosts": ["*"]}, "host"),
        ({"headers": {"X-PgRelay-Attempt": "1"}}, "relay itself"),
        ({"headers": {"a": "1\n2"}}, "line end"),
        ({"signing_secret": "whsec_?"}, "base64"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_keys_of_a_queue_that_would_not_work_or_leak_are_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        HttpKeys.model_validate(keys)
    assert "hidden" not in str(caught.value)


def test_a_secret_of_a_queue_goes_with_its_hosts() -> None:
    keys = {"hosts": ["a.test"], "headers": {"X-Key": "hidden"}, "auth": {"type": "bearer", "token": "hidden"}}
    assert "hidden" not in repr(HttpKeys.model_validate(keys))
    HttpKeys.model_validate({"headers": {"User-Agent": "shop/1"}, "signing_secret": "hidden"})  # tells no one a secret
