"""What `relay api` counts, in a registry of its own.

====================================  =========  ================  ================================================
name                                  kind       labels            meaning
====================================  =========  ================  ================================================
tide_relay_api_requests_total         counter    pipeline, status  requests answered, by HTTP status
tide_relay_api_messages_total         counter    pipeline, state   messages answered with 200: stored, or known
tide_relay_api_request_seconds        histogram  pipeline          time from the head of a request to its answer
tide_relay_api_batches_total          counter    (none)            transactions in which messages were written
tide_relay_api_pipelines              gauge      (none)            pipelines that can receive now
====================================  =========  ================  ================================================

The label pipeline is empty for paths that no pipeline has.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ApiMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "tide_relay_api_requests_total", "Requests answered, by HTTP status.", ("pipeline", "status"),
            registry=registry,
        )  # fmt: skip
        self.messages = Counter(
            "tide_relay_api_messages_total", "Messages answered with 200: stored, or known.", ("pipeline", "state"),
            registry=registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "tide_relay_api_request_seconds", "Time from the head of a request to its answer.", ("pipeline",),
            registry=registry, buckets=SECONDS,
        )  # fmt: skip
        self.batches = Counter(
            "tide_relay_api_batches_total", "Transactions in which messages were written.", registry=registry
        )
        self.pipelines = Gauge("tide_relay_api_pipelines", "Pipelines that can receive now.", registry=registry)
