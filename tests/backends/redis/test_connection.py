import ssl
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions
from pydantic import ValidationError

from relay.backends.redis.config import RedisKeys, address_of, connect_options
from relay.backends.redis.connection import client_name, packed_command
from relay.backends.redis.errors import ERRORS
from relay.errors import ConfigError
from tests.backends.clients import differences


def keys(**values: Any) -> RedisKeys:
    return RedisKeys.model_validate({"url": "redis://localhost"} | values)


class TestUrls:
    def test_say_everything(self) -> None:
        found = address_of("rediss+cluster://us%40er:p%2Fw@[::1]:7000/")
        assert (found.host, found.port, found.db) == ("::1", 7000, 0)
        assert (found.username, found.password) == ("us@er", "p/w")
        assert (found.encrypted, found.cluster) == (True, True)

    def test_say_little(self) -> None:
        found = address_of("redis://h")
        assert (found.host, found.port, found.db, found.username, found.password) == ("h", 6379, 0, None, None)
        assert address_of("redis://:p@h/3").db == 3

    @pytest.mark.parametrize(
        "url",
        [
            "", "h:6379", "http://h", "redis://", "redis://:hunter2@h:port", "redis://:hunter2@h/db",
            "redis://:hunter2@h?ssl_cert_reqs=none", "redis://:hunter2@h#x", "redis://:hunter2@[::1",
        ],
    )  # fmt: skip
    def test_that_cannot_work_are_refused_and_not_shown(self, url: str) -> None:
        with pytest.raises(ValueError, match="url") as caught:
            address_of(url)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("value", ["redis://a, redis://b:2", ["redis://a", "redis://b:2"]])
    def test_of_a_cluster_are_a_list_or_separated_by_commas(self, value: Any) -> None:
        assert [(one.host, one.port) for one in keys(url=value, cluster=True).addresses] == [("a", 6379), ("b", 2)]

    def test_that_are_references_are_seen_when_resolved(self) -> None:
        assert keys(url="${env:REDIS_URL}").url == ["${env:REDIS_URL}"]


class TestKeys:
    @pytest.mark.parametrize(
        "values",
        [
            {"url": []},
            {"url": "redis://a,redis://b"},
            {"url": "redis://a/1", "cluster": True},
            {"username": "u"},
            {"tls_cert": "/cert", "url": "rediss://a"},
            {"tls_ca": "/ca"},
            {"tls_verify": False},
        ],
    )
    def test_what_cannot_work_is_refused(self, values: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            keys(**values)

    def test_both_spellings_are_accepted(self) -> None:
        assert RedisKeys.model_validate({"redis_url": "redis://a"}).url == ["redis://a"]

    def test_secrets_are_not_in_its_text(self) -> None:
        made = keys(url="redis://:hidden1@a", username="u", password="hidden2")
        assert "hidden" not in repr(made) + str(made)

    def test_a_user_wins_over_the_urls(self) -> None:
        made = keys(url="redis://a:b@h", username="u", password="p")
        options = connect_options(made, made.addresses[0], "here")
        assert (options["username"], options["password"]) == ("u", "p")


class TestTls:
    def options(self, **values: Any) -> dict[str, Any]:
        made = keys(**{"url": "rediss://h"} | values)
        return connect_options(made, made.addresses[0], "here")

    def test_certificates_are_verified_unless_configured_otherwise(self) -> None:
        verifying, trusting = self.options(), self.options(tls_verify=False)
        assert (verifying["ssl_cert_reqs"], verifying["ssl_check_hostname"]) == ("required", True)
        assert (trusting["ssl_cert_reqs"], trusting["ssl_check_hostname"]) == ("none", False)

    def test_is_used_only_when_the_url_says_so(self) -> None:
        assert not any(name.startswith("ssl") for name in self.options(url="redis://h"))

    def test_a_file_that_cannot_be_read_is_named(self) -> None:
        with pytest.raises(ConfigError, match="tls_ca '/nowhere/file' cannot be read: No such file"):
            self.options(tls_ca="/nowhere/file")

    def test_a_file_without_a_certificate_is_a_matter_of_configuration(self, tmp_path: Path) -> None:
        (tmp_path / "ca").write_text("not a certificate")
        with pytest.raises(ConfigError, match="tls_ca"):
            self.options(tls_ca=str(tmp_path / "ca"))


class TestTheTablesOfErrors:
    def test_name_every_exception_of_the_client_and_none_besides(self) -> None:
        assert differences(ERRORS, redis.exceptions, "redis") == set()

    def test_only_what_a_record_itself_does_wrong_is_permanent(self) -> None:
        assert ERRORS.permanent == {"too_large"}

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (redis.exceptions.ResponseError("WRONGTYPE Operation against a key holding ..."), "wrong_type"),
            (redis.exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "unavailable"),
            (redis.exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), "not_replicated"),
            (redis.exceptions.ExecAbortError("Transaction discarded because of: OOM command not"), "out_of_memory"),
            (redis.exceptions.ExecAbortError("Transaction discarded because of previous errors."), "rejected"),
            (redis.exceptions.ResponseError("ERR unknown command `XAUTOCLAIM`"), "bad_config"),
            (redis.exceptions.ConnectionError("Error 1 connecting: [SSL: CERTIFICATE_VERIFY_FAILED] x"), "tls"),
            (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "loading"),
            (redis.exceptions.MovedError("1 127.0.0.1:1"), "moved"),
            (redis.exceptions.TimeoutError("Timeout reading"), "timeout"),
            (ssl.SSLCertVerificationError("certificate verify failed"), "tls"),
            (ConnectionRefusedError(111, "refused"), "not_connected"),
            (TimeoutError(), "timeout"),
        ],
    )
    def test_answers_of_the_server_and_errors_of_the_system_have_a_code(self, error: Exception, code: str) -> None:
        assert ERRORS.verdict(error) == (False, code)

    def test_a_person_is_not_asked_for_what_passes(self) -> None:
        passing = {"not_connected", "timeout", "loading", "read_only", "moved", "cluster_down", "out_of_memory"}
        assert not ERRORS.needs_operator & passing


def test_commands_are_packed_as_redis_reads_them() -> None:
    assert (
        packed_command(("XADD", "ü", 7, b"\x00\r\n"))
        == b"*4\r\n$4\r\nXADD\r\n$2\r\n\xc3\xbc\r\n$1\r\n7\r\n$3\r\n\x00\r\n\r\n"
    )


def test_a_name_of_a_client_has_no_spaces() -> None:
    assert client_name("a b\nü-c") == "tide-relay:a_b__-c"
