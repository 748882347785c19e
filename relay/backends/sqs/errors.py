"""What an error of SQS means, for a request and for one message of it."""

from relay.backends.common.aws_errors import SQS_PREFIX, aws_table, named
from relay.backends.common.error_table import Verdict

CODES = {
    # What this message itself does wrong.
    "bad_message": "InvalidMessageContents InvalidParameterValue",
    "too_large": "BatchRequestTooLong",
    # The queue.
    "no_queue": "QueueDoesNotExist NonExistentQueue QueueDeletedRecently ResourceNotFoundException InvalidAddress",
    "bad_config": "QueueNameExists InvalidAttributeName InvalidAttributeValue MissingParameter UnsupportedOperation",
    "auth": "InvalidSecurity",
    "throttled": "KmsThrottled KMS.ThrottlingException RequestThrottled ThrottlingException",
    # The key that encrypts the queue.
    "kms": """KmsAccessDenied KmsDisabled KmsInvalidKeyUsage KmsInvalidState KmsNotFound KmsOptInRequired
        KMS.AccessDeniedException KMS.DisabledException KMS.InvalidKeyUsageException KMS.InvalidStateException
        KMS.NotFoundException KMS.OptInRequired""",
    # 120,000 messages received and not deleted.
    "limits": "OverLimit",
    # A message that was received too long ago: it comes again.
    "receipt": "MessageNotInflight ReceiptHandleIsInvalid",
    # Mistakes of the relay.
    "rejected": """BatchEntryIdsNotDistinct EmptyBatchRequest InvalidBatchEntryId InvalidIdFormat
        PurgeQueueInProgress TooManyEntriesInBatchRequest""",
}

ERRORS = aws_table(
    answers=named(CODES),
    # Some servers know no groups on a standard queue: that is about the configuration, not about the message.
    words={"not valid for this queue type": "bad_config"},
    permanent={"bad_message", "too_large"},
    needs_operator={"no_queue"},
)


def entry_verdict(code: str, text: str) -> Verdict:
    """Of what is said of one message of a request."""
    return ERRORS.judge(text, (code.removeprefix(SQS_PREFIX),)) or Verdict(False, "rejected")
