"""What the source suite needs to know of a backend: how to make its source, how to send to it, how to trouble it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from relay.backends.source import Source, SourceFeatures

PIPELINE = "contract"

AWKWARD_BODIES = (
    b'{"a": 1}',
    b"",
    '{"ü": "日本語 🚀 \\u0000"}'.encode(),
    b'"' + b"x" * (512 * 1024) + b'"',
    b"null",
    b'"\\n"',
    b'{"n": 123456789012345678901234567890.12345678901234567890}',
)


@dataclass(frozen=True)
class Sent:
    """One message as a producer of that system sends it. What the system does not carry is left out by the harness."""

    body: bytes
    key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MissingSource:
    """A stream, topic or queue that does not exist."""

    name: str
    overrides: dict[str, Any]
    """Configuration that names it."""
    says: tuple[str, ...]
    """Words of the error that tell how to make it."""


class SourceHarness(ABC):
    """One backend, made ready for one scenario: an empty source, a service that runs."""

    kind: type[Source]
    restarts = 2
    """How often the scenario of a restart in mid-flow does it."""
    largest_body_bytes = 1_000_000
    """What can be sent; the suite sends nothing larger."""
    takes_over_at_once: Mapping[str, Any] = MappingProxyType({})
    """Configuration with which a lane soon has what another one left behind."""
    bodies: Sequence[bytes] = AWKWARD_BODIES
    """Bodies that the system can carry: a harness leaves out those that it cannot, and says why."""

    @property
    def features(self) -> SourceFeatures:
        return self.kind.features

    def make_source(self, **overrides: Any) -> Source:
        """A source that is not open yet; `overrides` replace keys of its configuration.

        All that are made read the same: another one is another worker of the same pipeline.
        """
        return self.kind(self.kind.config_model.model_validate(self.config() | overrides), PIPELINE)

    def alike(self, sent: bytes, received: bytes) -> bool:
        """Whether a body came unchanged."""
        return sent == received

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What was not acknowledged comes again by itself after `Limits.redelivery_seconds`, where that is configured:
        the scenarios tell so what is given back from what merely ran out."""

    @abstractmethod
    def send(self, messages: Sequence[Sent]) -> None:
        """As an independent producer, in order; returns when the system has them. Called from the test's thread."""

    def divide(self) -> None:  # noqa: B027
        """Gives the source two parts, if it has parts."""

    def send_apart(self, messages: Sequence[Sent]) -> None:
        """So that several lanes have some of them."""
        self.send(messages)

    @abstractmethod
    def stall(self) -> AbstractContextManager[object]:
        """For the length of the context the backend is there, and does not move."""

    def stop(self) -> None:
        """Only for sources that use a network: the backend goes away, keeping what was sent to it."""
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def wrong_credentials(self) -> dict[str, Any]:
        """Configuration that the backend refuses. Its values must not be in any error."""
        raise NotImplementedError

    def missing_source(self) -> MissingSource:
        raise NotImplementedError
