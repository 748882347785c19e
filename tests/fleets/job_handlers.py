"""Handlers of jobs for fleets that are observed: they do well, unless a file in `TEST_JOBS_FOLDER` says otherwise."""

import os
import time
from pathlib import Path

from relay.jobs import Discard, job

FOLDER = Path(os.environ.get("TEST_JOBS_FOLDER", "/nonexistent"))
REFUSE, HANG = FOLDER / "refuse", FOLDER / "hang"


@job(queue="mail")
async def send_receipt(order_id: int) -> None:
    if REFUSE.exists():
        raise Discard(f"order {order_id} has no address")


@job(queue="reports", timeout=600)
def make_report(year: int) -> int:
    while HANG.exists():
        time.sleep(0.02)
    return year
