"""The payload of an HTTP job, as PgRelay has it, in our words."""

from typing import Any

from relay.jobs.http import BadHttpJob, check_http_payload
from relay.web.admin.errors import Problem
from relay.web.admin.models import NewJobBody

_OURS = {"body_base64": "base64"}


def checked_payload(new: NewJobBody) -> tuple[dict[str, Any], dict[str, Any]]:
    """Payload and headers. Raises Problem if a worker would refuse them."""
    payload = {_OURS.get(key, key): value for key, value in new.payload.items() if value is not None}
    headers = payload.pop("headers", None) or {}
    if not isinstance(headers, dict):
        raise Problem(422, "validation_error", "headers of an HTTP job must be an object of texts.")
    headers = new.headers | headers
    try:
        check_http_payload(payload, headers)
    except BadHttpJob as error:
        raise Problem(422, "validation_error", str(error)) from error
    return payload, headers
