import inspect
import ssl
from pathlib import Path
from typing import Any

import nats.errors
import nats.js.errors
import nkeys
import pytest
from pydantic import ValidationError

from relay.backends.nats.client import connect_options
from relay.backends.nats.config import NatsSinkConfig
from relay.backends.nats.errors import ERRORS
from relay.backends.nats.sink import NatsSink, _subject_problem, _unsendable
from relay.errors import ConfigError
from relay.models import Record
from tests.backends.clients import differences


def config(**keys: Any) -> NatsSinkConfig:
    return NatsSinkConfig.model_validate({"url": "nats://localhost:4222", "stream": "orders"} | keys)


class TestKeys:
    @pytest.mark.parametrize("url", ["url", "nats_url", "servers"])
    @pytest.mark.parametrize("stream", ["stream", "nats_stream"])
    def test_both_spellings_are_accepted(self, url: str, stream: str) -> None:
        made = NatsSinkConfig.model_validate({url: "nats://a:4222", stream: "orders"})
        assert (made.url, made.stream) == (["nats://a:4222"], "orders")

    @pytest.mark.parametrize("value", ["nats://a:1, nats://b:2", ["nats://a:1", "nats://b:2"]])
    def test_several_servers_are_a_list_or_separated_by_commas(self, value: Any) -> None:
        assert config(url=value).url == ["nats://a:1", "nats://b:2"]

    @pytest.mark.parametrize(
        "keys",
        [
            {"stream": "a.b"},
            {"stream": "a b"},
            {"stream": ""},
            {"url": []},
            {"password": "x"},
            {"tls_cert": "/cert"},
            {"replicas": 0},
            {"max_in_flight": 0},
            {"streams": "x"},
        ],
    )
    def test_what_cannot_work_is_refused(self, keys: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            config(**keys)

    def test_secrets_are_not_in_its_text(self) -> None:
        made = config(url="nats://u:hidden1@a", user="u", password="hidden2", token="hidden3", nkey_seed="hidden4")
        assert "hidden" not in repr(made) + str(made)


class TestCredentialsAndTls:
    @pytest.mark.parametrize("key", ["creds_file", "tls_ca"])
    def test_a_file_that_cannot_be_read_is_named(self, key: str) -> None:
        with pytest.raises(ConfigError, match=f"{key} '/nowhere/file' cannot be read: No such file"):
            connect_options(config(**{key: "/nowhere/file"}), "here", 1000)

    def test_a_file_without_credentials_is_named_and_not_shown(self, tmp_path: Path) -> None:
        (tmp_path / "creds").write_text("hunter2")
        with pytest.raises(ConfigError, match="creds_file") as caught:
            connect_options(config(creds_file=str(tmp_path / "creds")), "here", 1000)
        assert "hunter2" not in str(caught.value)

    def test_a_file_without_a_certificate_is_a_matter_of_configuration(self, tmp_path: Path) -> None:
        (tmp_path / "ca").write_text("not a certificate")
        with pytest.raises(ConfigError, match="tls_ca"):
            connect_options(config(tls_ca=str(tmp_path / "ca")), "here", 1000)

    def test_certificates_are_verified_unless_configured_otherwise(self) -> None:
        verifying = connect_options(config(url="tls://a:4222"), "here", 1000)["tls"]
        assert (verifying.verify_mode, verifying.check_hostname) == (ssl.CERT_REQUIRED, True)
        trusting = connect_options(config(tls_verify=False), "here", 1000)["tls"]
        assert (trusting.verify_mode, trusting.check_hostname) == (ssl.CERT_NONE, False)

    def test_without_any_tls_key_the_server_decides(self) -> None:
        assert connect_options(config(), "here", 1000)["tls"] is None

    @pytest.mark.parametrize("seed", ["SUnonsense", "", "SUAAAA"])
    def test_a_seed_that_is_none_is_a_matter_of_configuration(self, seed: str) -> None:
        with pytest.raises((nkeys.NkeysError, ValueError)) as caught:
            nkeys.from_seed(seed.encode())
        assert ERRORS.verdict(caught.value).code in ERRORS.needs_operator


class TestWhatCanNeverBeSent:
    @pytest.mark.parametrize(
        "subject", ["", "a..b", ".a", "a.", "a b", "a\r\nPUB x", "a.*", ">", "$JS.API.X", "ä" * 2000]
    )
    def test_subjects_that_no_stream_can_take(self, subject: str) -> None:
        assert _subject_problem(subject)

    @pytest.mark.parametrize("subject", ["a", "a.b", "a*b.c", "ü.日本", "a-b_c.1", "a.$b"])
    def test_subjects_that_are_fine(self, subject: str) -> None:
        assert _subject_problem(subject) is None

    @pytest.mark.parametrize("value", ["x" * 50, "日" * 50])
    def test_headers_count_as_the_server_counts_them(self, value: str) -> None:
        headers = {"name": value}
        block = b"NATS/1.0\r\nname: " + value.encode() + b"\r\n\r\n"
        fitting = Record(1, "o:1", "a", None, b"x" * (1000 - len(block)), headers)
        assert _unsendable(0, fitting, headers, 1000) is None
        failure = _unsendable(0, fitting._replace(body=fitting.body + b"x"), headers, 1000)
        assert failure is not None
        assert (failure.permanent, failure.code) == (True, "too_large")


class TestTheTablesOfErrors:
    @pytest.mark.parametrize("module", [nats.errors, nats.js.errors])
    def test_name_every_exception_of_the_client_and_none_besides(self, module: Any) -> None:
        assert differences(ERRORS, module, "nats-py") == set()

    def test_only_what_a_record_itself_does_wrong_is_permanent(self) -> None:
        assert ERRORS.permanent == {"too_large", "bad_subject", "bad_header"}

    def test_a_code_of_jetstream_says_more_than_the_class(self) -> None:
        error = nats.js.errors.BadRequestError(code=400, err_code=10054, description="too big")
        assert ERRORS.verdict(error) == (True, "too_large")
        assert ERRORS.verdict(nats.js.errors.BadRequestError(code=400, err_code=1)) == (False, "rejected")

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (nats.errors.Error("nats: 'Authorization Violation'"), "auth"),
            (nats.errors.Error('nats: permissions violation for publish to "a"'), "forbidden"),
            (ssl.SSLCertVerificationError("self-signed"), "tls"),
            (ConnectionRefusedError(111, "refused"), "not_connected"),
            (TimeoutError(), "timeout"),
            (nats.errors.TimeoutError(), "timeout"),
        ],
    )
    def test_lines_of_the_server_and_errors_of_the_system_have_a_code(self, error: Exception, code: str) -> None:
        assert ERRORS.verdict(error) == (False, code)


def test_importing_the_sink_needs_no_client_library() -> None:
    # sink_class() serves pipelines that never use NATS, where it is not installed.
    assert "nats" not in vars(inspect.getmodule(NatsSink))
