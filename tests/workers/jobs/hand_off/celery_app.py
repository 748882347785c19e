"""A Celery application: `BROKER=redis://... SEEN=FILE celery -A tests.workers.jobs.hand_off.celery_app worker`."""

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery  # type: ignore[import-untyped]

URL = os.environ["BROKER"]

app = Celery("shop", broker=URL)
app.conf.task_default_queue = "mail"
app.conf.task_queue_max_priority = 7
app.conf.broker_connection_retry_on_startup = True
if URL.startswith("redis://"):
    app.conf.broker_transport_options = {"global_keyprefix": "app:", "priority_steps": [0, 5]}


@app.task(bind=True, name="shop.send_receipt")  # type: ignore[untyped-decorator]
def send_receipt(self: Any, *args: Any, **kwargs: Any) -> None:
    request = self.request
    seen = {
        "id": request.id,
        "args": args,
        "kwargs": kwargs,
        "options": {
            "priority": request.delivery_info["priority"],
            "expires": request.expires,
            "timelimit": request.timelimit,
            "trace_id": request.get("trace_id"),
            "tenant": request.get("tenant"),
        },
    }
    with Path(os.environ["SEEN"]).open("a") as file:
        file.write(json.dumps(seen) + "\n")
