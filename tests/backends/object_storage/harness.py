"""Object storage for the suite: a local folder, and a bucket; lines, and Parquet."""

import gzip
import io
import json
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet  # type: ignore[import-untyped]
import zstandard

from relay.backends.object_storage.config import ObjectStorageSinkConfig
from relay.backends.object_storage.sink import ObjectStorageSink
from relay.backends.object_storage.stores import INCOMING
from relay.backends.sink import Features
from tests.backends.harness import Harness, Missing, Seen
from tests.services.moto import REGION, MotoServer
from tests.services.proxy import Proxy


def rows_of(name: str, data: bytes) -> Iterator[Seen]:
    """The rows of an object, as a reader that knows the format by the name finds them."""
    if name.endswith(".parquet"):
        for row in pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist():
            yield Seen(row["payload"].encode(), row["key"], json.loads(row["headers"]))
        return
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    elif name.endswith(".zst"):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    else:
        assert name.endswith(".jsonl")
    *lines, end = data.split(b"\n")
    assert end == b"", "a partial line"
    yield from map(Seen, lines)


class ObjectStorageHarness(Harness):
    kind = ObjectStorageSink

    def __init__(self, **keys: Any) -> None:
        self.keys = keys

    @property
    def features(self) -> Features:
        return ObjectStorageSink.features_for(ObjectStorageSinkConfig.model_validate(self.config()))

    def config(self) -> dict[str, Any]:
        return {"prefix": "a/b", **self.place(), **self.keys}

    @abstractmethod
    def place(self) -> dict[str, Any]: ...

    @abstractmethod
    def objects(self) -> dict[str, bytes]:
        """What is in the place, by name."""

    def read_all(self) -> list[Seen]:
        return [seen for name, data in sorted(self.objects().items()) for seen in rows_of(name, data)]


class FolderHarness(ObjectStorageHarness):
    def __init__(self, path: Path, **keys: Any) -> None:
        super().__init__(**keys)
        self.path = path
        path.mkdir()

    @property
    def features(self) -> Features:
        return replace(super().features, uses_network=False, needs_credentials=False)

    def place(self) -> dict[str, Any]:
        return {"path": str(self.path)}

    def objects(self) -> dict[str, bytes]:
        assert not list((self.path / INCOMING).glob("*")), "left behind"
        return self.objects_without_incoming()

    def objects_without_incoming(self) -> dict[str, bytes]:
        """What a reader sees while an object is being written."""
        files = (path for path in sorted(self.path.rglob("*")) if path.is_file() and INCOMING not in path.parts)
        return {str(path.relative_to(self.path)): path.read_bytes() for path in files}

    def stall(self) -> AbstractContextManager[object]:
        # A disk that hangs holds every program that writes to it; there is no limit that would help.
        return nullcontext()

    def missing_destination(self) -> Missing:
        name = f"{self.path}-missing/orders"
        return Missing(name, {"path": name}, {"create": True}, "")


class BucketHarness(ObjectStorageHarness):
    """A bucket of its own, behind a proxy that takes the server away and gives it back."""

    def __init__(
        self, server: MotoServer, proxy: Proxy, strict: Callable[[], MotoServer] | None = None, **keys: Any
    ) -> None:
        """`strict` starts a server that looks at credentials."""
        super().__init__(**keys)
        self.server = server
        self.proxy = proxy
        self._strict = strict
        self.bucket = f"contract-{uuid.uuid4().hex[:8]}"
        self.s3 = server.client("s3")
        self.s3.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": REGION})

    def place(self) -> dict[str, Any]:
        return {"bucket": self.bucket} | self.server.config | {"endpoint_url": self.proxy.through(self.server.url)}

    def objects(self) -> dict[str, bytes]:
        listed = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        names = [each["Key"] for page in listed for each in page.get("Contents", [])]
        return {name: self.s3.get_object(Bucket=self.bucket, Key=name)["Body"].read() for name in names}

    @contextmanager
    def stall(self) -> Iterator[None]:
        self.proxy.stall()
        try:
            yield
        finally:
            self.proxy.heal()

    def stop(self) -> None:
        self.proxy.refuse()

    def start(self) -> None:
        self.proxy.heal()

    def wrong_credentials(self) -> dict[str, Any]:
        assert self._strict is not None
        key = "nobody-knows-this-key"
        return {"endpoint_url": self._strict().url, "access_key_id": key, "secret_access_key": f"secret-of-{key}"}

    def missing_destination(self) -> Missing:
        name = f"missing-{self.bucket}"
        return Missing(name, {"bucket": name}, {"create": True}, "")
