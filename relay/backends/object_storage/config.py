"""The keys of object storage."""

import string
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, field_validator, model_validator

from relay.backends.common.aws import AwsKeys
from relay.backends.common.keys import AbsolutePath, has_reference
from relay.backends.sink import SinkConfig

DATE_VARIABLES = ("year", "month", "day", "hour")
"""What may stand in braces in `partition_by`."""

Format = Literal["jsonl", "parquet"]
Compression = Literal["none", "gzip", "zstd"]


# A name, the ARN of an access point, or a reference that is not resolved yet.
_BUCKET = r"^([A-Za-z0-9._-]{3,255}|arn:\S{1,2000}|.*\$\{.*)$"


class ObjectStorageSinkConfig(AwsKeys, SinkConfig):
    timeout_ms: Annotated[int, Field(ge=10, le=3_600_000)] = 30_000
    """How long writing one object may take, or opening."""
    bucket: Annotated[str | None, Field(pattern=_BUCKET, validation_alias=AliasChoices("bucket", "s3_bucket"))] = None
    """Its name, or the ARN of an access point."""
    path: Annotated[AbsolutePath | None, Field(min_length=1)] = None
    """A folder instead of a bucket, as an absolute path."""
    prefix: Annotated[str, Field(max_length=512, validation_alias=AliasChoices("prefix", "s3_prefix"))] = ""
    create: bool = False
    """Make the bucket or the folder if it does not exist."""
    path_style: bool | None = None
    """Whether the bucket stands in the path of a URL, not in its host name; None: where there is an `endpoint_url`."""
    format: Format = "jsonl"
    compression: Compression = "gzip"
    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    max_bytes: Annotated[int, Field(ge=1, le=1024**3)] = 64 * 1024**2
    """Of bodies, before compression."""
    max_age_ms: Annotated[int, Field(ge=1, le=7 * 86_400_000)] = 300_000
    """Of the oldest message: how late it may be written."""
    partition_by: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    """A folder made from the date of the first message, in UTC."""

    @field_validator("prefix")
    @classmethod
    def _is_inside(cls, prefix: str) -> str:
        prefix = prefix.removesuffix("/")
        if prefix:
            _check_folders(prefix)
        return prefix

    @field_validator("partition_by")
    @classmethod
    def _has_known_variables(cls, text: str | None) -> str | None:
        if text is None or has_reference(text):
            return text
        known = ", ".join(f"{{{name}}}" for name in DATE_VARIABLES)
        try:
            fields = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"has unbalanced braces ({error}); known: {known}") from None
        for _, name, spec, conversion in fields:
            if name is not None and (name not in DATE_VARIABLES or spec or conversion):
                raise ValueError(f"has an unknown variable {{{name}}}; known: {known}")
        _check_folders(text)
        return text

    @model_validator(mode="after")
    def _has_one_destination(self) -> "ObjectStorageSinkConfig":
        if (self.bucket is None) == (self.path is None):
            raise ValueError("name either bucket (object storage) or path (a folder), and not both")
        return self

    def extras(self, sink_type: str) -> tuple[str, ...]:
        """A folder needs no client of S3."""
        store = super().extras(sink_type) if self.bucket is not None or self.compression == "zstd" else ()
        return (*store, *(("parquet",) if self.format == "parquet" else ()))

    def object_name(self, outbox: str, first_id: int, last_id: int, published: str) -> str:
        """Where an object goes: the same messages always under the same name. Sorts by id within a folder.

        `published` is the time of the first message, as `Record.created_at`.
        """
        # 19 digits: the largest bigint. Ids begin at 1.
        file = f"{outbox}-{first_id:019d}-{last_id:019d}{self._extension}"
        return "/".join(part for part in (self.prefix, self._partition(published), file) if part)

    def _partition(self, published: str) -> str:
        if self.partition_by is None:
            return ""
        return self.partition_by.format(
            year=published[:4], month=published[5:7], day=published[8:10], hour=published[11:13]
        )

    @property
    def content_type(self) -> str:
        if self.format == "parquet":
            return "application/vnd.apache.parquet"
        return {"none": "application/x-ndjson", "gzip": "application/gzip", "zstd": "application/zstd"}[
            self.compression
        ]

    @property
    def _extension(self) -> str:
        if self.format == "parquet":
            return ".parquet"
        return ".jsonl" + {"none": "", "gzip": ".gz", "zstd": ".zst"}[self.compression]


def _check_folders(text: str) -> None:
    if any(part in ("", ".", "..") for part in text.split("/")) or not text.isprintable():
        raise ValueError(
            "must be names with '/' between them: none empty, no '.' or '..', no '/' at the beginning or end"
        )
