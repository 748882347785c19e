"""The keys that Amazon's services share, their table of errors, and making a client."""

import socket
from pathlib import Path
from typing import Any

import botocore.exceptions  # type: ignore[import-untyped]
import pytest
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.httpsession import URLLib3Session  # type: ignore[import-untyped]
from botocore.retries.standard import (  # type: ignore[import-untyped]
    ThrottledRetryableChecker,
    TransientRetryableChecker,
)
from pydantic import ValidationError

from relay import reach
from relay.backends.common.aws import AwsKeys, described, make_client
from relay.backends.common.aws_errors import AWS_ERRORS, aws_table
from relay.errors import ConfigError
from relay.masking import remember
from relay.reach import Reach
from tests.backends.clients import differences
from tests.services.moto import REGION

KEYS = {"access_key_id": "AKIAHIDDEN", "secret_access_key": "hidden-secret", "region": REGION}


def config(**keys: Any) -> AwsKeys:
    return AwsKeys.model_validate(KEYS | keys)


def client_of(keys: AwsKeys, service: str = "sqs") -> Any:
    return make_client(service, service, keys, "pipeline 'p'", timeout_seconds=2)


class TestKeys:
    @pytest.mark.parametrize("prefix", ["", "aws_"])
    def test_both_spellings_are_accepted(self, prefix: str) -> None:
        given = {"region": "eu-west-1", "access_key_id": "a", "secret_access_key": "b", "session_token": "c"}
        made = AwsKeys.model_validate({prefix + key: value for key, value in given.items()})
        assert made.model_dump().items() >= given.items()

    @pytest.mark.parametrize(
        "url", ["https://vpce.example.com", "http://localhost:4566", "http://127.0.0.1:1", "http://[::1]:1"]
    )
    def test_an_endpoint_has_tls_or_is_on_this_machine(self, url: str) -> None:
        assert config(endpoint_url=url).endpoint_url == url

    @pytest.mark.parametrize(
        "url", ["http://minio.example.com", "http://10.0.0.1", "minio:9000", "ftp://a", "https://"]
    )
    def test_any_other_endpoint_is_refused(self, url: str) -> None:
        with pytest.raises(ValidationError, match="endpoint_url"):
            config(endpoint_url=url)

    def test_http_to_another_machine_has_to_be_allowed(self) -> None:
        assert config(endpoint_url="http://minio.example.com", allow_http=True).allow_http

    def test_credentials_do_not_belong_in_an_address(self) -> None:
        with pytest.raises(ValidationError, match="access_key_id") as caught:
            config(endpoint_url="https://user:hidden@minio.example.com")
        assert "hidden" not in str(caught.value)

    def test_a_reference_is_judged_when_it_is_resolved(self) -> None:
        assert config(endpoint_url="${env:ENDPOINT}").endpoint_url

    @pytest.mark.parametrize(
        "keys",
        [
            {"secret_access_key": None},
            {"access_key_id": None, "secret_access_key": None, "session_token": "x"},
            {"profile": "x"},
        ],
    )
    def test_halves_of_credentials_are_refused(self, keys: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            config(**keys)

    def test_secrets_are_not_in_its_text(self) -> None:
        assert "hidden" not in repr(config(session_token="hidden-token")).lower()


class TestMakingAClient:
    def test_a_certificate_file_that_cannot_be_read_is_named(self) -> None:
        with pytest.raises(ConfigError, match="pipeline 'p': tls_ca '/nowhere/ca' cannot be read: No such file"):
            client_of(config(tls_ca="/nowhere/ca"))

    def test_a_region_is_asked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
        with pytest.raises(ConfigError, match=r"set region"):
            client_of(config(region=None))

    def test_a_profile_that_does_not_exist_is_named(self) -> None:
        reach.put_in_force(Reach(ambient_credentials=True))
        with pytest.raises(ConfigError, match="nobodys"):
            client_of(AwsKeys(region=REGION, profile="nobodys"))

    def test_it_never_tries_again_by_itself(self) -> None:
        made = client_of(config(endpoint_url="http://127.0.0.1:1"))
        sent: list[object] = []
        made.meta.events.register("before-send.sqs.*", lambda request, **_: sent.append(request))
        with pytest.raises(botocore.exceptions.EndpointConnectionError):
            made.list_queues()
        made.close()
        assert len(sent) == 1


class TestTheTableOfErrors:
    def test_names_every_exception_of_botocore_and_none_besides(self) -> None:
        assert differences(AWS_ERRORS, botocore.exceptions, "botocore") == set()

    def test_names_every_code_that_botocore_itself_would_try_again(self) -> None:
        theirs = {
            *ThrottledRetryableChecker._THROTTLED_ERROR_CODES,
            *TransientRetryableChecker._TRANSIENT_ERROR_CODES,
        }
        assert {AWS_ERRORS.answers[name] for name in theirs} == {"throttled", "timeout"}
        statuses = {AWS_ERRORS.answers[status] for status in TransientRetryableChecker._TRANSIENT_STATUS_CODES}
        assert statuses == {"unavailable"}

    def test_nothing_in_it_is_permanent(self) -> None:
        assert AWS_ERRORS.permanent == set()

    @pytest.mark.parametrize(
        ("code", "status", "meaning"),
        [
            ("SignatureDoesNotMatch", 403, "auth"),
            ("AccessDenied", 403, "forbidden"),
            ("403", 403, "forbidden"),
            ("Throttling", 400, "throttled"),
            ("InternalError", 500, "unavailable"),
            ("Unheard", 503, "unavailable"),
            ("Unheard", 400, "rejected"),
        ],
    )
    def test_answers_have_a_code(self, code: str, status: int, meaning: str) -> None:
        answer = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        assert AWS_ERRORS.verdict(botocore.exceptions.ClientError(answer, "Send")) == (False, meaning)

    def test_a_services_own_codes_go_first(self) -> None:
        answer = {"Error": {"Code": "AccessDenied", "Message": "m"}}
        error = botocore.exceptions.ClientError(answer, "Send")
        assert aws_table({"AccessDenied": "mine"}, permanent={"mine"}).verdict(error) == (True, "mine")

    @pytest.mark.parametrize(
        ("error", "meaning"),
        [
            (botocore.exceptions.SSLError(endpoint_url="u", error="certificate verify failed: self-signed"), "tls"),
            (botocore.exceptions.SSLError(endpoint_url="u", error="EOF occurred"), "not_connected"),
            (botocore.exceptions.ReadTimeoutError(endpoint_url="u"), "timeout"),
            (botocore.exceptions.ConnectTimeoutError(endpoint_url="u"), "timeout"),
            (botocore.exceptions.EndpointConnectionError(endpoint_url="u"), "not_connected"),
            (botocore.exceptions.NoCredentialsError(), "auth"),
            (OSError("broken pipe"), "not_connected"),
        ],
    )
    def test_errors_of_the_connection_have_a_code(self, error: Exception, meaning: str) -> None:
        assert AWS_ERRORS.verdict(error) == (False, meaning)

    def test_a_request_that_cannot_be_sent_in_time_ran_out_of_time(self) -> None:
        """boto3 says of it that the connection was closed."""
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
            request = AWSRequest(method="PUT", url=url, data=bytes(64 * 1024 * 1024)).prepare()
            with pytest.raises(botocore.exceptions.ConnectionClosedError) as caught:
                URLLib3Session(timeout=0.2).send(request)
        assert AWS_ERRORS.verdict(caught.value) == (False, "timeout")

    def test_who_we_are_and_what_we_may_is_for_a_person(self) -> None:
        assert {"auth", "forbidden", "tls"} < AWS_ERRORS.needs_operator
        assert not {"timeout", "throttled", "unavailable", "not_connected", "rejected"} & AWS_ERRORS.needs_operator

    def test_secrets_are_not_in_what_is_said(self) -> None:
        remember("secret")  # of another, and a part of ours
        said = described(ValueError("AKIAHIDDEN signed with hidden-secret"), config())
        assert said == "*** signed with ***"
