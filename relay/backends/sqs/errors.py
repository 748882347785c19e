"""What an error of SQS means, for a request and for one message of it: one table of its codes.

Each answer is (permanent, code), as in `aws_errors.py`, which has what is common to Amazon's services.
"""

from relay.backends.common.aws_errors import CODES

SQS_CODES: dict[str, tuple[bool, str]] = {
    # What this message itself does wrong.
    "InvalidMessageContents": (True, "bad_message"),
    "InvalidParameterValue": (True, "bad_message"),
    "BatchRequestTooLong": (True, "too_large"),
    # The queue.
    "QueueDoesNotExist": (False, "no_queue"),
    "NonExistentQueue": (False, "no_queue"),
    "QueueDeletedRecently": (False, "no_queue"),
    "ResourceNotFoundException": (False, "no_queue"),
    "InvalidAddress": (False, "no_queue"),
    "QueueNameExists": (False, "bad_config"),
    "InvalidAttributeName": (False, "bad_config"),
    "InvalidAttributeValue": (False, "bad_config"),
    "MissingParameter": (False, "bad_config"),
    "UnsupportedOperation": (False, "bad_config"),
    # Who we are; the key that encrypts the queue.
    "InvalidSecurity": (False, "auth"),
    "KmsThrottled": (False, "throttled"),
    "KMS.ThrottlingException": (False, "throttled"),
    **dict.fromkeys(
        ("KmsAccessDenied", "KmsDisabled", "KmsInvalidKeyUsage", "KmsInvalidState", "KmsNotFound", "KmsOptInRequired"),
        (False, "kms"),
    ),
    **dict.fromkeys(
        (
            "KMS.AccessDeniedException",
            "KMS.DisabledException",
            "KMS.InvalidKeyUsageException",
            "KMS.InvalidStateException",
            "KMS.NotFoundException",
            "KMS.OptInRequired",
        ),
        (False, "kms"),
    ),
    # The service.
    "OverLimit": (False, "limits"),  # 120,000 messages received and not deleted
    "RequestThrottled": (False, "throttled"),
    "ThrottlingException": (False, "throttled"),
    # A message that was received too long ago: it comes again.
    "MessageNotInflight": (False, "receipt"),
    "ReceiptHandleIsInvalid": (False, "receipt"),
    # Our own mistakes.
    "BatchEntryIdsNotDistinct": (False, "rejected"),
    "EmptyBatchRequest": (False, "rejected"),
    "InvalidBatchEntryId": (False, "rejected"),
    "InvalidIdFormat": (False, "rejected"),
    "PurgeQueueInProgress": (False, "rejected"),
    "TooManyEntriesInBatchRequest": (False, "rejected"),
}
"""(permanent, code) by error code, without the prefix `AWS.SimpleQueueService.`."""

_WORDS = (
    # Some servers know no groups on a standard queue: a matter of configuration, not of the message.
    ("not valid for this queue type", (False, "bad_config")),
)


def entry_verdict(code: str, text: str) -> tuple[bool, str]:
    """(permanent, code) of what is said of one message of a request."""
    return sqs_verdict(code, text) or CODES.get(code, (False, "rejected"))


def sqs_verdict(code: str, text: str) -> tuple[bool, str] | None:
    """(permanent, code) of an error code of SQS; None for one that it does not define."""
    for words, answer in _WORDS:
        if words in text:
            return answer
    return SQS_CODES.get(code.removeprefix("AWS.SimpleQueueService."))
