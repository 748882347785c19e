"""Objects in a bucket of S3, or of what speaks its language (MinIO, R2, Ceph, Google Cloud Storage).

An object is one PUT, which S3 makes visible whole or not at all, and answers when it is durable: no parts that an
aborted upload would leave behind to be paid for. Its MD5 goes with it, so that S3 refuses what was damaged on the way.
"""

import base64
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from relay.backends.common.aws import advice, described, make_client
from relay.backends.object_storage.config import ObjectStorageSinkConfig
from relay.backends.object_storage.encode import Spool
from relay.backends.object_storage.errors import ADVICE, ERRORS
from relay.backends.object_storage.stores import Store
from relay.errors import ConfigError, NotConnected

_SMALL_BYTES = 1024 * 1024
"""Up to this an object is sent from memory, without asking S3 first if it wants it (`Expect: 100-continue`)."""


class S3Store(Store):
    def __init__(self, config: ObjectStorageSinkConfig, bucket: str, where: str) -> None:
        self._config = config
        self._bucket = bucket
        super().__init__(where, f"{where}: spooling in {tempfile.gettempdir()!r}")
        self._client: Any = None

    def open(self) -> None:
        self.close()
        path_style = self._config.path_style
        if path_style is None:
            path_style = self._config.endpoint_url is not None
        # Three waits at most: to send (or connect), for the rest of the body, and for the answer.
        third = self._config.timeout_ms / 1000 / 3
        self._client = make_client(
            "s3",
            "object-storage",
            self._config,
            self.where,
            timeout_seconds=third,
            # Others that speak S3 do not all know its newer checksums; all know MD5.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if path_style else "auto"},
        )
        try:
            self._check_bucket()
        except BaseException:
            self.close()
            raise

    def spool(self) -> Spool:
        return Spool(tempfile.TemporaryFile(prefix="tide-"))

    def put(self, spool: Spool, name: str) -> None:
        spool.file.flush()
        spool.file.seek(0)
        body = _Upload(spool.file, time.monotonic() + self._config.timeout_ms / 1000 * 2 / 3)
        with self._errors(f"object {name!r}", opening=False, upload=body):
            self._client.put_object(
                Bucket=self._bucket,
                Key=name,
                Body=spool.file.read() if spool.size <= _SMALL_BYTES else body,
                ContentLength=spool.size,
                ContentMD5=base64.b64encode(spool.md5).decode(),
                ContentType=self._config.content_type,
            )

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _check_bucket(self) -> None:
        try:
            with self._errors("looking at it", opening=True):
                # Unlike head_bucket it says which of the reasons it is.
                self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._config.prefix, MaxKeys=1)
        except ConfigError as error:
            if error.__cause__ is None or ERRORS.verdict(error.__cause__).code != "no_bucket":
                raise
            if not self._config.create:
                raise ConfigError(
                    f"{self.where}: there is no such bucket: make it (aws s3 mb s3://{self._bucket}), or set create to "
                    "true to have it made"
                ) from error
            self._make_bucket()

    def _make_bucket(self) -> None:
        region = self._client.meta.region_name
        # The first of the regions is the one that must not be named.
        named = {} if region in (None, "us-east-1", "aws-global") else {"LocationConstraint": region}
        options = {"CreateBucketConfiguration": named} if named else {}
        try:
            with self._errors("making it", opening=True):
                self._client.create_bucket(Bucket=self._bucket, **options)
        except NotConnected as error:
            # Another worker may have made it meanwhile.
            if error.code != "bucket_exists":
                raise

    @contextmanager
    def _errors(self, what: str, *, opening: bool, upload: "_Upload | None" = None) -> Iterator[None]:
        """The client's errors as ours. A ConfigError is for `open` alone. Bugs stay bugs."""
        import botocore.exceptions  # type: ignore[import-untyped]

        try:
            yield
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            code = "timeout" if upload is not None and upload.late else ERRORS.verdict(error).code
            text = f"{self.where}: {what}: {described(error, self._config)}{ADVICE.get(code) or advice(code)}"
            if code == "timeout":
                text += "; make timeout_ms longer, or max_bytes smaller, if the network is slow"
            is_for_operator = opening and code in ERRORS.needs_operator
            raise (ConfigError(text) if is_for_operator else NotConnected(text, code=code)) from error


class _Upload:
    """The file as the client reads it: up to a moment, after which it fails."""

    def __init__(self, file: IO[bytes], deadline: float) -> None:
        self._file = file
        self._deadline = deadline
        self.late = False

    def read(self, size: int = -1) -> bytes:
        if time.monotonic() > self._deadline:
            self.late = True
            raise TimeoutError
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
