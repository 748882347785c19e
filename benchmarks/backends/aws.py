"""SQS and S3, as moto answers for them, by boto3. moto is slow: what it takes is in both."""

import gzip
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.backends.base import Destination
from benchmarks.bare import Batches, Row, headers
from tests.services.moto import MotoServer

PER_REQUEST = 10
IN_FLIGHT = 8
OBJECTS = 3
"""Into which a backlog goes."""
_BUCKET = "bench"


class SqsDestination(Destination):
    """A standard queue; requests of ten messages, eight at a time, as the relay has them by default."""

    def __init__(self, moto: MotoServer) -> None:
        self._moto = moto
        self._client = moto.client("sqs")
        self._queues: dict[str, str] = {}

    def config(self, place: str, backlog: int) -> dict[str, object]:  # noqa: ARG002
        return {"sink_type": "sqs", "queue_url": self._queues[place], **self._moto.config}

    def deliver(self, batches: Batches, place: str, backlog: int) -> None:  # noqa: ARG002
        client = self._moto.client("sqs")  # to make one takes a while, and ours makes one too

        def send(rows: Sequence[Row]) -> None:
            entries = [
                {"Id": str(row[0]), "MessageBody": row[1], "MessageAttributes": _attributes(row)} for row in rows
            ]
            answer = client.send_message_batch(QueueUrl=self._queues[place], Entries=entries)
            if answer.get("Failed"):
                raise RuntimeError(f"moto refused messages: {answer['Failed'][0]}")

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            for rows in batches:
                list(pool.map(send, [rows[begin : begin + PER_REQUEST] for begin in range(0, len(rows), PER_REQUEST)]))

    def count(self, place: str) -> int:
        name = "ApproximateNumberOfMessages"
        answer = self._client.get_queue_attributes(QueueUrl=self._queues[place], AttributeNames=[name])
        return int(answer["Attributes"][name])

    def make(self, place: str) -> None:
        self._queues[place] = self._client.create_queue(QueueName=place)["QueueUrl"]

    def remove(self, place: str) -> None:
        self._client.delete_queue(QueueUrl=self._queues.pop(place))


class BucketDestination(Destination):
    """Lines of JSON, gzip: the backlog in three objects."""

    def __init__(self, moto: MotoServer) -> None:
        self._moto = moto
        self._client = moto.client("s3")
        self._client.create_bucket(
            Bucket=_BUCKET, CreateBucketConfiguration={"LocationConstraint": moto.config["region"]}
        )

    def config(self, place: str, backlog: int) -> dict[str, object]:
        rows = -(-backlog // OBJECTS)
        return {"sink_type": "object_storage", "bucket": _BUCKET, "prefix": place, "wire_format": "raw",
                "max_rows": rows, "max_age_ms": 100, **self._moto.config}  # fmt: skip

    def deliver(self, batches: Batches, place: str, backlog: int) -> None:
        client = self._moto.client("s3")
        rows_of_each = -(-backlog // OBJECTS)
        compressor, compressed, rows_in, done = _gzip(), b"", 0, 0
        for rows in batches:
            compressed += compressor.compress(("\n".join([row[1] for row in rows]) + "\n").encode())
            rows_in += len(rows)
            done += len(rows)
            batches.settles = rows_in >= rows_of_each or done == backlog
            if batches.settles:
                body = compressed + compressor.flush()
                client.put_object(Bucket=_BUCKET, Key=f"{place}/{done}.jsonl.gz", Body=body)
                compressor, compressed, rows_in = _gzip(), b"", 0

    def count(self, place: str) -> int:
        listed = self._client.list_objects_v2(Bucket=_BUCKET, Prefix=f"{place}/")
        objects = [self._client.get_object(Bucket=_BUCKET, Key=entry["Key"]) for entry in listed.get("Contents", [])]
        return sum(gzip.decompress(found["Body"].read()).count(b"\n") for found in objects)


def _attributes(row: Row) -> dict[str, Any]:
    return {name: {"DataType": "String", "StringValue": value} for name, value in headers(row).items()}


def _gzip() -> Any:
    return zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
