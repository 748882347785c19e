"""The keys of SQS: of the queue, the sink and the source."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, field_validator, model_validator

from relay.backends.common.aws import AwsKeys
from relay.backends.common.keys import AsciiHost, check_template
from relay.backends.sink import SinkConfig
from relay.backends.source import SourceConfig

LONGEST_POLL_SECONDS = 20
"""How long SQS lets one request wait for messages."""

_AMAZONS = re.compile(r"\.amazonaws\.(com|com\.cn|eu)$")
_REGION = re.compile(r"(?:(?:^|\.)sqs(?:-fips)?\.|^)([a-z]{2}(?:-[a-z]+)+-\d)\.")


class SqsKeys(AwsKeys):
    queue_url: Annotated[AsciiHost, Field(validation_alias=AliasChoices("queue_url", "sqs_queue_url"))]
    create_queue: bool = False
    """Create the queue if it does not exist, with the service's defaults. An existing queue is never changed."""
    max_in_flight: Annotated[int, Field(ge=1, le=100)] = 8
    """Requests at a time, of ten messages each."""

    @model_validator(mode="after")
    def _is_a_queue(self) -> "SqsKeys":
        self.check_url("queue_url", self.queue_url)
        return self

    @property
    def queue_name(self) -> str:
        return self.queue_url.rstrip("/").rpartition("/")[2]

    @property
    def is_fifo(self) -> bool:
        return self.queue_name.endswith(".fifo")

    def with_defaults(self) -> "SqsKeys":
        """Region and endpoint as the queue's address says them, where they are not given."""
        parts = urlsplit(self.queue_url)
        host = parts.hostname or ""
        found = _REGION.search(host)
        own_service = not _AMAZONS.search(host) or ".vpce." in host
        update = {
            "region": self.region or (found[1] if found else None),
            "endpoint_url": self.endpoint_url or (f"{parts.scheme}://{parts.netloc}" if own_service else None),
        }
        return self.model_copy(update=update)


class SqsSinkConfig(SqsKeys, SinkConfig):
    message_group_id: Annotated[
        str | None, Field(validation_alias=AliasChoices("message_group_id", "sqs_message_group_id"))
    ] = None
    """A template. Default in a FIFO queue: the key, and the outbox for messages without one."""
    strict_order: bool = False
    """Only one message of a group in a request."""

    @field_validator("message_group_id")
    @classmethod
    def _is_a_template(cls, value: str | None) -> str | None:
        if value is not None:
            check_template(value, "message_group_id")
        return value


class SqsSourceConfig(SqsKeys, SourceConfig):
    wait_time_seconds: Annotated[int, Field(ge=1, le=LONGEST_POLL_SECONDS)] = LONGEST_POLL_SECONDS
    """How long one request waits for messages, at most."""
    visibility_timeout: Annotated[int, Field(ge=1, le=43_200)] = 30
    """Seconds until what was received by a worker that is gone comes again."""
