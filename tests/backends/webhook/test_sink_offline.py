import inspect
import ssl
import time
from typing import Any

import httpcore
import pytest
from pydantic import ValidationError

from relay.backends.common.tls import tls_context
from relay.backends.webhook.client import CLIENT_ERRORS
from relay.backends.webhook.config import WebhookSinkConfig
from relay.backends.webhook.errors import ERRORS, retry_after_seconds, status_verdict
from relay.backends.webhook.lanes import Lanes
from relay.backends.webhook.sink import CONNECTION_CODES, WebhookSink
from relay.errors import ConfigError
from relay.models import Failure
from relay.pipelines.config import parse_forward
from tests.backends.clients import differences


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


class TestTheTableOfErrors:
    def test_names_every_exception_of_the_client_and_none_besides(self) -> None:
        assert differences(ERRORS, httpcore, "httpcore") == set()
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
