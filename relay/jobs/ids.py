"""The UUID of a job, as `tide.job_uuid` makes it: version 8, the queue's outbox in front, the id behind."""

_FIRST_BIT = 1 << 63


def job_uuid(outbox_id: int, number: int) -> str:
    text = f"{number | _FIRST_BIT:016x}"
    return f"{outbox_id:08x}-0000-8000-{text[:4]}-{text[4:]}"
