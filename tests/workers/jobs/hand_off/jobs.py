"""Jobs as a claim hands them out, for an actor of Dramatiq or a task of Celery."""

import itertools
from datetime import UTC, datetime
from typing import Any

from relay.jobs.models import EPOCH, Claimed

ARGUMENTS = '{"args": [42, "Zoë"], "kwargs": {"price": 0.1, "lines": [{"n": null}], "big": 12345678901234567890}}'
_CREATED_US = int((datetime(2030, 1, 1, tzinfo=UTC) - EPOCH).total_seconds()) * 1_000_000
_ids = itertools.count(1)
NAMES = {"dramatiq": "send_receipt", "celery": "shop.send_receipt"}


def job(system: str, payload: str = ARGUMENTS, **changes: Any) -> Claimed:
    values: dict[str, Any] = {
        "queue": "receipts", "outbox_id": 1, "lease_id": 1, "id": next(_ids), "attempt": 1, "kind": system[0],
        "name": NAMES[system], "priority": 0, "timeout_seconds": 30, "max_attempts": 10, "payload": payload,
        "headers": None, "metadata": None, "options": '{"queue": "mail"}', "idempotency_key": None, "run_key": None,
        "trace_id": None, "created_us": _CREATED_US, "due_us": _CREATED_US,
    }  # fmt: skip
    return Claimed(**(values | changes))
