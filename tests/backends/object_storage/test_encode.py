"""The bytes of an object: they depend on the records alone."""

import gzip
import io
import json
import random
import sys
from datetime import datetime
from typing import Any

import pyarrow.parquet  # type: ignore[import-untyped]
import pytest
import zstandard

from relay.backends.object_storage.encode import BLOCK_BYTES, Encoder, LinesEncoder, Spool
from relay.backends.object_storage.parquet import COLUMNS, GROUP_BYTES, GROUP_ROWS, ParquetEncoder
from relay.errors import MissingExtra
from relay.models import Record

PUBLISHED = "2025-03-01T12:30:00.123456Z"
ALL = [(kind, compression) for kind in (LinesEncoder, ParquetEncoder) for compression in ("none", "gzip", "zstd")]


def record(number: int, body: bytes = b"{}", **fields: Any) -> Record:
    return Record(number, f"a:b:{number}", "orders", None, body, {}, PUBLISHED)._replace(**fields)


def many(count: int, seed: int = 1) -> list[Record]:
    random_ = random.Random(seed)
    return [
        record(number, json.dumps(random_.random()).encode() * 20, key=f"k{number % 7}") for number in range(1, count)
    ]


def encoded(kind: type[Encoder], compression: Any, *batches: list[Record]) -> bytes:
    spool = Spool(io.BytesIO())
    encoder = kind(spool, compression)
    for batch in batches:
        assert encoder.add(batch) == []
    encoder.finish()
    data = spool.file.getvalue()
    assert len(data) == spool.size
    return data


def table(data: bytes) -> Any:
    return pyarrow.parquet.read_table(io.BytesIO(data))


@pytest.mark.parametrize(("kind", "compression"), ALL)
def test_the_same_records_make_the_same_bytes_however_they_are_batched(kind, compression):
    records = many(3000)
    assert sum(len(each.body) for each in records) > 3 * BLOCK_BYTES
    whole = encoded(kind, compression, records)
    assert encoded(kind, compression, records) == whole
    for size in (1, 7, 999, 2999):
        assert encoded(kind, compression, *(records[i : i + size] for i in range(0, len(records), size))) == whole


def test_row_groups_end_where_the_records_say_and_not_where_a_batch_ends():
    records = [record(number) for number in range(1, GROUP_ROWS + 10)]
    data = encoded(ParquetEncoder, "none", records)
    assert encoded(ParquetEncoder, "none", records[:17], records[17:]) == data
    metadata = pyarrow.parquet.read_metadata(io.BytesIO(data))
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [GROUP_ROWS, 9]


def test_row_groups_are_bounded_by_bytes_too():
    data = encoded(ParquetEncoder, "none", [record(number, b'"' + b"x" * GROUP_BYTES + b'"') for number in (1, 2)])
    assert pyarrow.parquet.read_metadata(io.BytesIO(data)).num_row_groups == 2


def test_lines_are_what_every_tool_reads():
    bodies = [b'{"a": 1}', '"ü 🚀"'.encode(), b"null"]
    records = [record(number, body) for number, body in enumerate(bodies, 1)]
    lines = b"".join(body + b"\n" for body in bodies)
    assert encoded(LinesEncoder, "none", records) == lines
    assert gzip.decompress(encoded(LinesEncoder, "gzip", records)) == lines
    assert zstandard.ZstdDecompressor().decompressobj().decompress(encoded(LinesEncoder, "zstd", records)) == lines


def test_gzip_says_nothing_of_the_time_of_writing():
    header = encoded(LinesEncoder, "gzip", [record(1)])[:10]
    assert header[3] == 0, "a flag: a file name, or more"
    assert header[4:8] == bytes(4), "the time"


def test_a_parquet_row_is_a_record():
    sent = record(7, '{"ü": 2}'.encode(), key="k", headers={"type": "paid", "name": "日本"})
    (row,) = table(encoded(ParquetEncoder, "zstd", [sent])).to_pylist()
    assert row == {
        "id": 7,
        "outbox": "a:b",
        "key": "k",
        "subject": "orders",
        "created_at": datetime.fromisoformat(PUBLISHED),
        "headers": '{"type":"paid","name":"日本"}',
        "payload": '{"ü": 2}',
    }


def test_the_columns_of_parquet_have_the_types_that_are_documented():
    schema = table(encoded(ParquetEncoder, "none", [record(1)])).schema
    assert {field.name: (str(field.type), field.nullable) for field in schema} == {
        "id": ("int64", False),
        "outbox": ("string", False),
        "key": ("string", True),
        "subject": ("string", True),
        "created_at": ("timestamp[us, tz=UTC]", False),
        "headers": ("string", False),
        "payload": ("string", False),
    }
    assert tuple(schema.names) == COLUMNS


@pytest.mark.parametrize(
    "bad", [{"body": b"\xff"}, {"key": "\ud800"}, {"headers": {"a": "\udfff"}}, {"subject": "\ud800"}]
)
def test_text_that_is_not_utf8_is_refused_for_good_by_parquet_and_its_neighbours_are_written(bad):
    spool = Spool(io.BytesIO())
    encoder = ParquetEncoder(spool, "none")
    (failure,) = encoder.add([record(1), record(2, **bad), record(3)])
    encoder.finish()
    assert (failure.index, failure.permanent, failure.code) == (1, True, "not_utf8")
    assert table(spool.file.getvalue())["id"].to_pylist() == [1, 3]


@pytest.mark.parametrize("kind", [LinesEncoder, ParquetEncoder])
def test_what_is_thrown_away_writes_nothing_more(kind):
    spool = Spool(io.BytesIO())
    encoder = kind(spool, "none")
    encoder.add([record(1)])
    spool.close()
    del encoder


@pytest.mark.parametrize(
    ("library", "kind", "compression", "extra"),
    [("zstandard", LinesEncoder, "zstd", "object-storage"), ("pyarrow", ParquetEncoder, "none", "parquet")],
)
def test_a_missing_library_is_named_by_its_extra(monkeypatch, library, kind, compression, extra):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"tide-relay\[{extra}\]"):
        kind(Spool(io.BytesIO()), compression)
