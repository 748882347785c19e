"""Jobs: declare handlers, and enqueue in your own transaction.

    from relay.jobs import job

    @job(queue="mail", max_attempts=5)
    async def send_receipt(order_id: int) -> None: ...

    send_receipt.enqueue(connection, order_id=42)

`relay workers --jobs MODULE` runs them; `relay.jobs.testing` has what tests of applications need.
"""

from relay.jobs import errors
from relay.jobs.batches import (
    batch,
    batch_async,
    batch_close,
    batch_close_async,
    batch_create,
    batch_create_async,
    batch_get,
    batch_get_async,
)
from relay.jobs.client import (
    enqueue,
    enqueue_async,
    enqueue_celery,
    enqueue_celery_async,
    enqueue_dramatiq,
    enqueue_dramatiq_async,
    enqueue_http,
    enqueue_http_async,
    enqueue_many,
    enqueue_many_async,
    template,
    template_celery,
    template_dramatiq,
    template_http,
)
from relay.jobs.context import Context, current
from relay.jobs.handlers import Job
from relay.jobs.middleware import around, before
from relay.jobs.models import BatchProgress
from relay.jobs.outcomes import Discard, Retry, Snooze
from relay.jobs.registry import job
from relay.jobs.templates import Template

__all__ = [
    "BatchProgress",
    "Context",
    "Discard",
    "Job",
    "Retry",
    "Snooze",
    "Template",
    "around",
    "batch",
    "batch_async",
    "batch_close",
    "batch_close_async",
    "batch_create",
    "batch_create_async",
    "batch_get",
    "batch_get_async",
    "before",
    "current",
    "enqueue",
    "enqueue_async",
    "enqueue_celery",
    "enqueue_celery_async",
    "enqueue_dramatiq",
    "enqueue_dramatiq_async",
    "enqueue_http",
    "enqueue_http_async",
    "enqueue_many",
    "enqueue_many_async",
    "errors",
    "job",
    "template",
    "template_celery",
    "template_dramatiq",
    "template_http",
]
