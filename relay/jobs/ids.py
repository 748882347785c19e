"""The UUID of a job, as `tide.job_uuid` makes it: version 8, the queue's outbox in front, the id behind."""

from uuid import UUID

_FIRST_BIT = 1 << 63


def job_uuid(outbox_id: int, number: int) -> str:
    return str(UUID(f"{outbox_id:08x}00008000{number | _FIRST_BIT:016x}"))
