"""The object storage sink: many messages become one object, in a bucket or in a local folder.

The invariant: an object is named after its first and its last message and nothing else, and its bytes follow from its
messages alone. So writing the same messages again overwrites the object with itself.
"""

import io
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from relay.backends.common.os_errors import OS_ERRORS, translate
from relay.backends.object_storage.config import ObjectStorageSinkConfig
from relay.backends.object_storage.encode import Encoder, LinesEncoder, Spool
from relay.backends.object_storage.errors import ERRORS
from relay.backends.object_storage.parquet import ParquetEncoder
from relay.backends.object_storage.s3 import S3Store
from relay.backends.object_storage.stores import FolderStore, Store
from relay.backends.sink import Features, ObjectLimits, ObjectSink
from relay.errors import NotConnected
from relay.models import Failure, Record

FEATURES = Features(
    needs_destination=True,
    needs_credentials=True,
    default_wire_format="envelope",
    default_subject="{outbox}",
    one_lane="an object holds what follows each other in the outbox",
)
"""Of lines: an envelope carries key and headers."""

PARQUET_FEATURES = replace(FEATURES, keeps_headers=True, keeps_key=True, default_wire_format="raw")
"""Parquet has columns for them."""


class ObjectStorageSink(ObjectSink[ObjectStorageSinkConfig]):
    features: ClassVar[Features] = FEATURES
    config_model = ObjectStorageSinkConfig
    needs_operator = ERRORS.needs_operator | OS_ERRORS.needs_operator

    def __init__(self, config: ObjectStorageSinkConfig, pipeline: str) -> None:
        self._config = config
        self.features = self.features_for(config)  # type: ignore[misc]  # the class's own are those of the default format
        self.limits = ObjectLimits(self._config.max_rows, self._config.max_bytes, self._config.max_age_ms)
        self._store = _store(self._config, pipeline)
        self._in_hand: _Object | None = None
        self._is_open = False
        # Lets close() come from another thread: it waits for the object that is being written.
        self._busy = threading.Lock()

    @classmethod
    def features_for(cls, config: ObjectStorageSinkConfig) -> Features:
        """What this configuration promises: it depends on the format."""
        return PARQUET_FEATURES if config.format == "parquet" else FEATURES

    def open(self) -> None:
        self.close()
        with self._busy:
            # A missing library is reported now, not with the first message.
            _encoder(self._config, Spool(io.BytesIO()))
            self._store.open()
            self._is_open = True

    def append(self, records: Sequence[Record]) -> list[Failure]:
        with self._busy:
            self._check_open()
            if not records:
                return []
            try:
                if self._in_hand is None:
                    self._in_hand = _Object(self._config, self._store.spool())
                return self._in_hand.add(records)
            except OSError as error:
                self._drop()
                raise translate(error, self._store.disk, opening=False) from error
            except BaseException:
                self._drop()
                raise

    def seal(self) -> None:
        with self._busy:
            self._check_open()
            try:
                if self._in_hand is not None and self._in_hand.rows:
                    self._in_hand.finish()
                    self._store.put(self._in_hand.spool, self._in_hand.name)
            except OSError as error:
                raise translate(error, self._store.disk, opening=False) from error
            finally:
                self._drop()

    def close(self) -> None:
        with self._busy:
            self._is_open = False
            self._drop()
            self._store.close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise NotConnected(f"{self._store.where}: not open", code="closed")

    def _drop(self) -> None:
        gathered, self._in_hand = self._in_hand, None
        if gathered is not None:
            gathered.spool.close()


class _Object:
    """The object in hand."""

    def __init__(self, config: ObjectStorageSinkConfig, spool: Spool) -> None:
        self._config = config
        self.spool = spool
        self._encoder = _encoder(config, spool)
        self._first: tuple[str, int, str] | None = None
        self._last_id = 0
        self.rows = 0

    def add(self, records: Sequence[Record]) -> list[Failure]:
        if self._first is None:
            first = records[0]
            self._first = (first.dedup_id.rpartition(":")[0], first.id, first.created_at)
        self._last_id = records[-1].id
        failures = self._encoder.add(records)
        self.rows += len(records) - len(failures)
        return failures

    def finish(self) -> None:
        self._encoder.finish()

    @property
    def name(self) -> str:
        assert self._first is not None
        outbox, first_id, published = self._first
        return self._config.object_name(outbox, first_id, self._last_id, published)


def _encoder(config: ObjectStorageSinkConfig, spool: Spool) -> Encoder:
    kind: type[Encoder] = ParquetEncoder if config.format == "parquet" else LinesEncoder
    return kind(spool, config.compression)


def _store(config: ObjectStorageSinkConfig, pipeline: str) -> Store:
    if config.bucket is not None:
        return S3Store(config, config.bucket, f"pipeline {pipeline!r}: bucket {config.bucket!r}")
    assert config.path is not None
    return FolderStore(config.path, f"pipeline {pipeline!r}: folder {config.path!r}", create=config.create)
