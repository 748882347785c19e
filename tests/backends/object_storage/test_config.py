"""The keys of the object storage sink, and the names of objects that follow from them."""

from typing import Any

import pytest

from relay.backends.object_storage.config import ObjectStorageSinkConfig
from relay.errors import ConfigError
from relay.pipelines.config import parse_forward

NOON = "2025-03-01T12:00:00.000000Z"


def config(**keys: Any) -> ObjectStorageSinkConfig:
    return ObjectStorageSinkConfig.model_validate({"path": "/data"} | keys)


def problem(**keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_forward({"sink_type": "object_storage"} | keys)
    return str(caught.value)


@pytest.mark.parametrize(
    ("keys", "extension"),
    [
        ({}, ".jsonl.gz"),
        ({"compression": "zstd"}, ".jsonl.zst"),
        ({"compression": "none"}, ".jsonl"),
        ({"format": "parquet"}, ".parquet"),
        ({"format": "parquet", "compression": "none"}, ".parquet"),
    ],
)
def test_the_name_tells_the_format(keys, extension):
    name = config(**keys).object_name("orders", 1, 20, NOON)
    assert name == f"orders-0000000000000000001-0000000000000000020{extension}"


def test_names_sort_by_id_up_to_the_largest():
    ids = [1, 9, 10, 2**31, 2**63 - 1]
    names = [config().object_name("orders", number, number, NOON) for number in ids]
    assert names == sorted(names)


def test_a_prefix_and_a_partition_are_folders():
    made = config(prefix="raw/", partition_by="year={year}/{month}-{day}/{hour}")
    assert made.object_name("o", 1, 1, NOON).startswith("raw/year=2025/03-01/12/o-")


@pytest.mark.parametrize("key", ["bucket", "s3_bucket"])
def test_a_bucket_is_known_by_both_names(key):
    assert ObjectStorageSinkConfig.model_validate({key: "lake"}).bucket == "lake"


@pytest.mark.parametrize("keys", [{}, {"bucket": "lake", "path": "/data"}])
def test_one_place_is_needed_and_no_more(keys):
    assert "either bucket" in problem(**keys)


@pytest.mark.parametrize("prefix", ["/a", "a//b", "../a", "a/./b", "a\nb"])
def test_a_prefix_that_leads_elsewhere_is_refused(prefix):
    assert problem(path="/data", prefix=prefix).startswith("prefix:")


@pytest.mark.parametrize("text", ["{week}", "{year", "{year:d}", "{year!r}", "{}", "/{year}", "{year}/.."])
def test_a_partition_that_cannot_be_made_is_refused(text):
    assert problem(path="/data", partition_by=text).startswith("partition_by:")


def test_an_unknown_variable_is_told_together_with_the_known_ones():
    assert "{week}; known: {year}, {month}, {day}, {hour}" in problem(path="/data", partition_by="{week}")


def test_a_relative_path_is_refused():
    assert "absolute" in problem(path="data")


def test_references_are_allowed_before_they_are_resolved():
    parse_forward(
        {"sink_type": "object_storage", "path": "${env:DATA}/x", "prefix": "${env:P}", "partition_by": "${env:X}"}
    )


def test_what_a_library_would_find_at_the_first_message_is_found_now():
    assert "compression" in problem(path="/data", compression="lz4")
    assert "format" in problem(path="/data", format="csv")
