"""The object storage sink on a bucket: the suite, and what is true of buckets alone."""

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from relay.backends.object_storage.sink import ObjectStorageSink
from relay.backends.sink import ObjectSink
from relay.errors import ConfigError, NotConnected
from relay.models import Record
from tests.backends.harness import PIPELINE, Harness
from tests.backends.object_storage.harness import BucketHarness
from tests.backends.steps import Limits, numbers, opened, publish, record, records, within
from tests.backends.suite import SinkSuite
from tests.services.http_receiver import HttpReceiver, Rule
from tests.services.moto import REGION, MotoServer
from tests.services.proxy import Proxy

MEGABYTE = 1024 * 1024
SOME = [Record(number, f"orders:{number}", "", None, b'{"n": %d}' % number, {}) for number in (1, 2, 3)]
EMPTY_LISTING = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>'


@pytest.fixture
def bucket(
    moto_server: MotoServer, proxy: Callable[[str], Proxy], request: pytest.FixtureRequest
) -> Callable[..., BucketHarness]:
    """Makes a bucket for this test: `bucket(format="parquet")`."""

    def make(**keys: Any) -> BucketHarness:
        return BucketHarness(
            moto_server, proxy(moto_server.url), lambda: request.getfixturevalue("strict_moto"), **keys
        )

    return make


class TestLinesInABucket(SinkSuite):
    @pytest.fixture
    def harness(self, bucket: Callable[..., BucketHarness]) -> Harness:
        return bucket()


def test_parquet_in_a_bucket_has_key_and_headers(bucket: Callable[..., BucketHarness]) -> None:
    harness = bucket(format="parquet", compression="zstd")
    sent = [record(harness, n, key=f"k{n}", headers={"name": "Zoë"}) for n in range(1, 1001)]
    with opened(harness) as sink:
        assert publish(sink, sent) == []
    assert [(seen.body, seen.key, seen.headers) for seen in harness.read_all()] == [
        (each.body, each.key, each.headers) for each in sent
    ]


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1"])
def test_a_bucket_is_made_in_the_region_that_is_named(bucket: Callable[..., BucketHarness], region: str) -> None:
    """The first of the regions must not be named in the request, the others must."""
    harness = bucket(region=region)
    harness.bucket = f"made-in-{region}-{uuid.uuid4().hex[:8]}"
    for _ in range(2):
        with opened(harness, create=True) as sink:
            assert publish(sink, SOME) == []
    assert numbers(harness) == [1, 2, 3]
    place = harness.s3.get_bucket_location(Bucket=harness.bucket)["LocationConstraint"]
    assert place == (None if region == "us-east-1" else region)


class TestUploads:
    """Objects that are large enough to be sent from disk."""

    @pytest.fixture
    def harness(self, bucket: Callable[..., BucketHarness]) -> BucketHarness:
        return bucket(compression="none")

    def test_a_large_object_arrives_whole(self, harness: BucketHarness) -> None:
        with opened(harness) as sink:
            assert publish(sink, records(harness, 1, 300, padding=20_000)) == []
        assert numbers(harness) == list(range(1, 301))

    def test_one_that_is_cut_off_leaves_nothing_and_is_written_whole_the_next_time(
        self, harness: BucketHarness
    ) -> None:
        sent = records(harness, 1, 300, padding=20_000)
        with opened(harness) as sink:
            harness.proxy.cut_after(3 * MEGABYTE)
            with pytest.raises(NotConnected):
                publish(sink, sent)
            assert harness.objects() == {}
            assert "Uploads" not in harness.s3.list_multipart_uploads(Bucket=harness.bucket)
            sink.open()
            assert publish(sink, sent) == []
        assert numbers(harness) == list(range(1, 301))

    def test_one_that_is_too_slow_ends_in_time(self, harness: BucketHarness) -> None:
        with opened(harness, timeout_ms=600) as sink:
            harness.proxy.delay(0.1)  # for each 64 KiB: ten seconds
            with pytest.raises(NotConnected) as caught:
                within(0.6 + Limits.moment_seconds, lambda: publish(sink, records(harness, 1, 300, padding=20_000)))
            harness.proxy.heal()
        assert caught.value.code == "timeout"
        assert "timeout_ms" in str(caught.value)


class TestAnswers:
    """What a server answers that moto never does."""

    @pytest.fixture
    def answering(self, http_receiver: HttpReceiver) -> Callable[..., tuple[ObjectStorageSink, str]]:
        def make(*rules: Rule, **keys: Any) -> tuple[ObjectStorageSink, str]:
            name = f"answers-{uuid.uuid4().hex[:8]}"
            http_receiver.rule(f"/{name}", *rules, Rule(body=EMPTY_LISTING))
            place = {"bucket": name, "endpoint_url": http_receiver.url, "region": REGION, "compression": "none"}
            config = place | {"access_key_id": "a", "secret_access_key": "b"} | keys
            sink = ObjectStorageSink(ObjectStorageSink.config_model.model_validate(config), PIPELINE)
            sink.open()
            return sink, f"/{name}"

        return make

    @pytest.mark.parametrize(
        ("status", "word", "code"),
        [
            (503, "SlowDown", "throttled"),
            (500, "InternalError", "unavailable"),
            (400, "BadDigest", "damaged"),
            (400, "RequestTimeout", "timeout"),
            (403, "AccessDenied", "forbidden"),
            (404, "NoSuchBucket", "no_bucket"),
            (507, "XMinioStorageFull", "storage_full"),
            (418, "Teapot", "rejected"),
        ],
    )
    def test_a_refusal_means_gather_again_and_not_that_it_is_written(self, answering, status, word, code):
        refusal = Rule(status=status, body=f"<Error><Code>{word}</Code><Message>no</Message></Error>", contains='"n"')
        sink, _ = answering(refusal)
        with pytest.raises(NotConnected) as caught:
            publish(sink, SOME)
        sink.close()
        assert caught.value.code == code
        assert PIPELINE in str(caught.value)

    def test_a_server_that_hangs_up_did_not_confirm(self, answering):
        sink, _ = answering(Rule(hang_up=True, contains='"n"'))
        with pytest.raises(NotConnected):
            publish(sink, SOME)
        sink.close()

    @pytest.mark.parametrize("padding", [0, MEGABYTE])
    def test_an_object_travels_with_its_md5(self, answering, http_receiver, padding):
        sink, path = answering()
        assert publish(sink, [each._replace(body=each.body + b" " * padding) for each in SOME]) == []
        sink.close()
        (put,) = [each for each in http_receiver.requests(path) if each.method == "PUT"]
        assert base64.b64decode(put.headers["content-md5"]) == hashlib.md5(put.body).digest()
        assert put.headers["content-type"] == "application/x-ndjson"

    def test_tries_again_are_decided_above(self, answering, http_receiver):
        sink, path = answering(Rule(status=503, contains='"n"'))
        with pytest.raises(NotConnected):
            publish(sink, SOME)
        sink.close()
        assert [each.method for each in http_receiver.requests(path)] == ["GET", "PUT"]


def test_credentials_and_permissions_are_for_a_person(strict_moto: MotoServer) -> None:
    server = strict_moto
    s3 = server.client("s3")
    s3.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": REGION})
    iam = server.client("iam")
    iam.create_user(UserName="stranger")
    key = iam.create_access_key(UserName="stranger")["AccessKey"]
    stranger = {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}

    def problem(**keys: Any) -> str:
        config = {"bucket": "lake"} | server.config | keys
        sink = ObjectStorageSink(ObjectStorageSink.config_model.model_validate(config), PIPELINE)
        with pytest.raises(ConfigError) as caught:
            sink.open()
        sink.close()
        assert not any(secret in str(caught.value) for secret in (config["secret_access_key"], config["access_key_id"]))
        return str(caught.value)

    assert "AccessDenied" in problem(**stranger)
    assert "SignatureDoesNotMatch" in problem(secret_access_key="not-the-secret")
    assert "AccessDenied" in problem(bucket="another-lake", create=True, **stranger)
    # The user may look, and not write: told when it comes to that, and again and again until it may.
    allowed = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="stranger", PolicyName="look", PolicyDocument=policy)
    config = {"bucket": "lake"} | server.config | stranger
    sink = ObjectStorageSink(ObjectStorageSink.config_model.model_validate(config), PIPELINE)
    sink.open()
    with pytest.raises(NotConnected) as caught:
        sink.publish(SOME)
    sink.close()
    assert caught.value.code == "forbidden"
    for client in (s3, iam):
        client.close()


def test_the_spool_of_a_bucket_has_no_name_that_a_crash_could_leave(
    bucket: Callable[..., BucketHarness], tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    harness = bucket()
    with opened(harness) as sink:
        assert isinstance(sink, ObjectSink)
        sink.append(records(harness, 1, 10))
        assert os.listdir(tmp_path) == []
        sink.seal()
    assert numbers(harness) == list(range(1, 11))
