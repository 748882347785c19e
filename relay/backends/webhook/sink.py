"""The webhook sink: an HTTP request for each record, or one for a JSON array of many.

Delivered means answered with a status from 200 to 299. `lanes.py` keeps the order of each key while several
requests are on the way; `client.py` makes one request; `network.py` sees to it that no name leads into
the private network; docs/backends/webhook.md says what a receiver gets.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from relay.backends.common.batch import Batch
from relay.backends.common.deadline import in_ms
from relay.backends.common.opening import opened
from relay.backends.sink import Features, Sink
from relay.backends.webhook.config import WebhookSinkConfig
from relay.backends.webhook.errors import ERRORS
from relay.backends.webhook.lanes import Lanes
from relay.backends.webhook.url import BAD_URL, UrlTemplate
from relay.errors import ConfigError, MissingExtra, NotConnected
from relay.models import Failure, Record

if TYPE_CHECKING:
    from relay.backends.webhook.client import WebhookClient

CONNECTION_CODES = frozenset({"not_connected", "timeout", "tls", "forbidden_address", "bad_request"})
"""Failures of the connection, not answers: with nothing delivered, the sink is not connected."""


class WebhookSink(Sink[WebhookSinkConfig]):
    features: ClassVar[Features] = Features(keeps_headers=True, cloudevents_binding="http")
    config_model = WebhookSinkConfig
    needs_operator = ERRORS.needs_operator | {"redirect", "bad_config"}

    def __init__(self, config: WebhookSinkConfig, pipeline: str) -> None:
        self._config = config
        try:
            self._url = UrlTemplate(self._config.url)
        except ConfigError as error:
            raise ConfigError(f"pipeline {pipeline!r}: url {error}") from None
        # Not the path, which is a secret with many receivers.
        self._where = f"pipeline {pipeline!r}: webhook {self._url.origin}"
        self._client: WebhookClient | None = None
        config.remember_secrets()

    def open(self) -> None:
        try:
            from relay.backends.webhook.client import WebhookClient
        except ImportError as error:
            raise MissingExtra("webhook", "webhook") from error
        self.close()
        self._client = opened(WebhookClient(self._config, self._url.origin, self._where))

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        deadline = in_ms(self._config.timeout_ms)
        client = self._client
        if client is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        with client.hold():
            batch = self._send(client, records, deadline)
        if client.closed and batch.failures:
            raise NotConnected(f"{self._where}: the sink was closed", code="closed")
        standstill = batch.standstill
        if standstill is not None and standstill.code in CONNECTION_CODES:
            raise NotConnected(f"{self._where}: {standstill.reason}", code=standstill.code)
        return batch.result()

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _send(self, client: "WebhookClient", records: Sequence[Record], deadline: float) -> Batch:
        from relay.backends.webhook.batches import send_in_arrays
        from relay.backends.webhook.client import Outgoing

        targets = [self._url.target(record) for record in records]
        if self._config.batch:
            return send_in_arrays(client, records, targets, self._config.max_body_bytes, deadline)

        def send(index: int) -> Failure | None:
            record, target = records[index], targets[index]
            if target is None:
                return Failure(index, True, "bad_url", BAD_URL)
            return client.send(Outgoing(record.dedup_id, target, record.body, record.headers, index), deadline)

        try:
            return Lanes([record.key for record in records]).run(send, self._config.max_in_flight, client.helpers)
        except RuntimeError:
            if client.closed:  # no thread is to be had any more
                raise NotConnected(f"{self._where}: the sink was closed", code="closed") from None
            raise
