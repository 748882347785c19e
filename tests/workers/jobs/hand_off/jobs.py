"""Jobs as a claim hands them out, for an actor of Dramatiq or a task of Celery."""

import uuid
from datetime import UTC, datetime
from typing import Any

from relay.jobs.models import Claimed

ARGUMENTS = '{"args": [42, "Zoë"], "kwargs": {"price": 0.1, "lines": [{"n": null}], "big": 12345678901234567890}}'
NAMES = {"dramatiq": "send_receipt", "celery": "shop.send_receipt"}


def job(system: str, payload: str = ARGUMENTS, **changes: Any) -> Claimed:
    values: dict[str, Any] = {
        "queue": "receipts", "lease_id": 1, "id": 1, "uuid": str(uuid.uuid4()), "attempt": 1, "kind": system[0],
        "name": NAMES[system], "priority": 0, "timeout_seconds": 30, "max_attempts": 10, "payload": payload,
        "headers": None, "metadata": None, "options": '{"queue": "mail"}', "idempotency_key": None, "run_key": None,
        "trace_id": None, "created_at": datetime(2030, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return Claimed(**(values | changes))
