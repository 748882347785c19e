"""What an answer of S3 means, beside what any of Amazon's services may answer (`relay.backends.common.aws_errors`).

No error here concerns a single message, so none is permanent: the object is gathered and written again.
"""

from collections.abc import Mapping

from relay.backends.common import aws_errors

NEEDS_OPERATOR = aws_errors.NEEDS_OPERATOR | {"no_bucket", "bucket_taken"}

_CONFIGURATION = (
    "EncryptionTypeMismatch IllegalLocationConstraintException InvalidArgument InvalidBucketName InvalidBucketState"
    " InvalidEncryptionAlgorithmError InvalidLocationConstraint InvalidRegionName InvalidRequest InvalidURI"
    " KMS.DisabledException KMS.InvalidKeyUsageException KMS.KMSInvalidStateException KMS.NotFoundException"
    " KeyTooLongError MethodNotAllowed NoSuchAccessPoint NotImplemented PermanentRedirect"
)

CODES: Mapping[str, tuple[bool, str]] = {
    "NoSuchBucket": (False, "no_bucket"),
    "BucketAlreadyOwnedByYou": (False, "bucket_exists"),
    "BucketAlreadyExists": (False, "bucket_taken"),
    "AccessForbidden": (False, "forbidden"),
    **dict.fromkeys(_CONFIGURATION.split(), (False, "bad_config")),
    # The bytes are not those that we sent.
    "BadDigest": (False, "damaged"),
    "IncompleteBody": (False, "damaged"),
    "InvalidDigest": (False, "damaged"),
    "XAmzContentSHA256Mismatch": (False, "damaged"),
    "EntityTooLarge": (False, "too_large"),
    # No room: Ceph, MinIO.
    "QuotaExceeded": (False, "storage_full"),
    "InsufficientStorage": (False, "storage_full"),
    "XMinioStorageFull": (False, "storage_full"),
    "TooManyBuckets": (False, "limits"),
    "OperationAborted": (False, "unavailable"),
    "TemporaryRedirect": (False, "unavailable"),
    "503": (False, "unavailable"),
    # Of what this sink does not use: appending, and uploads in parts.
    "InvalidWriteOffset": (False, "rejected"),
    "TooManyParts": (False, "rejected"),
}

ADVICE = {
    "bucket_taken": " (choose another name: it belongs to somebody else)",
    "too_large": " (lower max_bytes or max_rows)",
}


def code_of(error: BaseException) -> str:
    """A short word for anything that a client of S3 raised."""
    return aws_errors.verdict(error, CODES)[1]
