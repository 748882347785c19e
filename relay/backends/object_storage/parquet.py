"""Records -> a Parquet file. Imports pyarrow only when it is used."""

from collections.abc import Sequence
from typing import Any

from relay.backends.object_storage.config import Compression
from relay.backends.object_storage.encode import Encoder, Spool
from relay.errors import MissingExtra
from relay.models import Failure, Record
from relay.wire.templates import encode_json

GROUP_ROWS = 20_000
GROUP_BYTES = 2 * 1024 * 1024
"""What is held in memory, of bodies, keys and headers, until it is written as a row group."""

COLUMNS = ("id", "outbox", "key", "subject", "created_at", "headers", "payload")


class ParquetEncoder(Encoder):
    """One row for each record. Row groups end by rows and bytes alone, so not where a batch happened to end."""

    def __init__(self, spool: Spool, compression: Compression) -> None:
        self._arrow = pyarrow()
        # Pyarrow's own keeps what is freed: 25 MB more.
        self._pool = self._arrow.system_memory_pool()
        self._schema = _schema(self._arrow)
        self._writer = self._arrow.parquet.ParquetWriter(
            self._arrow.PythonFile(spool, mode="w"),
            self._schema,
            compression=compression.upper(),
            # A dictionary of payloads that are all different costs memory and saves nothing.
            use_dictionary=["outbox", "subject"],
            write_statistics=["id", "outbox", "key", "subject", "created_at"],
            memory_pool=self._pool,
        )
        self._columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        self._group_bytes = 0

    def add(self, records: Sequence[Record]) -> list[Failure]:
        failures: list[Failure] = []
        for index, record in enumerate(records):
            try:
                self._add(record)
            except (UnicodeDecodeError, UnicodeEncodeError) as error:
                reason = f"its text is not UTF-8, as Parquet needs it: {error.reason}"
                failures.append(Failure(index, True, "not_utf8", reason))
            if self._group_bytes >= GROUP_BYTES or len(self._columns["id"]) >= GROUP_ROWS:
                self._write_group()
        return failures

    def finish(self) -> None:
        self._write_group()
        self._writer.close()

    def _add(self, record: Record) -> None:
        payload = record.body.decode()
        headers = encode_json(record.headers)
        # Lone surrogates would be found by pyarrow only, in the midst of a row group.
        size = sum(len(text.encode()) for text in (headers, record.subject, record.key or ""))
        outbox = record.dedup_id.rpartition(":")[0]
        row = (record.id, outbox, record.key, record.subject, record.created_at, headers, payload)
        for name, value in zip(COLUMNS, row, strict=True):
            self._columns[name].append(value)
        self._group_bytes += size + len(record.body)

    def _write_group(self) -> None:
        columns, self._columns = self._columns, {name: [] for name in COLUMNS}
        self._group_bytes = 0
        if columns["id"]:
            arrays = [self._array(columns[field.name], field.type) for field in self._schema]
            group = self._arrow.record_batch(arrays, schema=self._schema)
            self._writer.write_batch(group, row_group_size=GROUP_ROWS)

    def _array(self, values: list[Any], kind: Any) -> Any:
        if not self._arrow.types.is_timestamp(kind):
            return self._arrow.array(values, kind, memory_pool=self._pool)
        texts = self._arrow.array(values, self._arrow.string(), memory_pool=self._pool)
        return texts.cast(kind, memory_pool=self._pool)


def _schema(arrow: Any) -> Any:
    text = arrow.string()
    types = {"id": arrow.int64(), "created_at": arrow.timestamp("us", tz="UTC")}
    required = {"id", "outbox", "created_at", "headers", "payload"}
    return arrow.schema([arrow.field(name, types.get(name, text), name not in required) for name in COLUMNS])


def pyarrow() -> Any:
    """The library. Raises MissingExtra."""
    try:
        import pyarrow as library  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtra("object_storage", "parquet") from None
    return library
