"""What an answer of S3 means.

No error here is about a single message, so none is permanent: the object is gathered and written again.
"""

from relay.backends.common.aws_errors import aws_table, named

CODES = {
    "no_bucket": "NoSuchBucket",
    "bucket_exists": "BucketAlreadyOwnedByYou",
    "bucket_taken": "BucketAlreadyExists",
    "forbidden": "AccessForbidden",
    "bad_config": """EncryptionTypeMismatch IllegalLocationConstraintException InvalidArgument InvalidBucketName
        InvalidBucketState InvalidEncryptionAlgorithmError InvalidLocationConstraint InvalidRegionName InvalidRequest
        InvalidURI KMS.DisabledException KMS.InvalidKeyUsageException KMS.KMSInvalidStateException
        KMS.NotFoundException KeyTooLongError MethodNotAllowed NoSuchAccessPoint NotImplemented PermanentRedirect""",
    # The bytes are not those that were sent.
    "damaged": "BadDigest IncompleteBody InvalidDigest XAmzContentSHA256Mismatch",
    "too_large": "EntityTooLarge",
    # No room: Ceph, MinIO.
    "storage_full": "QuotaExceeded InsufficientStorage XMinioStorageFull",
    "limits": "TooManyBuckets",
    "unavailable": "OperationAborted TemporaryRedirect 503",
    # Of what this sink does not use: appending, and uploads in parts.
    "rejected": "InvalidWriteOffset TooManyParts",
}

ERRORS = aws_table(answers=named(CODES), needs_operator={"no_bucket", "bucket_taken"})

ADVICE = {
    "bucket_taken": " (choose another name: it belongs to someone else)",
    "too_large": " (lower max_bytes or max_rows)",
}
