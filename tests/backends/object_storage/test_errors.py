"""What the answers of S3 mean: every one that its model names for what the sink asks is in the table."""

import botocore.loaders  # type: ignore[import-untyped]
import pytest
from botocore.exceptions import (  # type: ignore[import-untyped]
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
)

from relay.backends.object_storage.errors import ERRORS

OPERATIONS = ("ListObjectsV2", "PutObject", "CreateBucket")


def answer(code: str, status: int = 400) -> ClientError:
    said = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(said, "PutObject")


def test_every_error_that_s3_models_for_what_we_ask_is_known():
    model = botocore.loaders.create_loader().load_service_model("s3", "service-2")
    named = {error["shape"] for operation in OPERATIONS for error in model["operations"][operation].get("errors", [])}
    assert named, "the model has changed its form"
    assert named <= ERRORS.answers.keys()


def test_every_error_that_is_sent_as_s3_says_it_should_be_is_known():
    assert {"InternalError", "ServiceUnavailable", "SlowDown"} <= ERRORS.answers.keys()


def test_no_error_gives_a_message_up():
    assert ERRORS.permanent == set()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (answer("NoSuchBucket", 404), "no_bucket"),
        (answer("AccessDenied", 403), "forbidden"),
        (answer("InvalidAccessKeyId", 403), "auth"),
        (answer("SignatureDoesNotMatch", 403), "auth"),
        (answer("ExpiredToken"), "auth"),
        (answer("SlowDown", 503), "throttled"),
        (answer("Unheard", 503), "unavailable"),
        (answer("Unheard", 400), "rejected"),
        (answer("BucketAlreadyExists", 409), "bucket_taken"),
        (answer("PermanentRedirect", 301), "bad_config"),
        (EndpointConnectionError(endpoint_url="x"), "not_connected"),
        (ConnectTimeoutError(endpoint_url="x"), "timeout"),
        (NoCredentialsError(), "auth"),
    ],
)
def test_an_error_is_one_short_word(error, code):
    assert ERRORS.verdict(error).code == code


def test_what_a_person_must_change_is_not_what_passes_by_itself():
    assert {"no_bucket", "bucket_taken", "auth", "forbidden", "bad_config", "tls", "no_region"} == ERRORS.needs_operator
