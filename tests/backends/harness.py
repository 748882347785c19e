"""What the suite needs to know of a backend: how to make its sink, what a receiver sees, how to trouble it."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from relay.backends.sink import Features, Sink

PIPELINE = "contract"


@dataclass(frozen=True)
class Seen:
    """One record as a receiver finds it. What the backend does not carry is empty."""

    body: bytes
    key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Missing:
    """A destination that does not exist."""

    name: str
    overrides: dict[str, Any]
    """Configuration that names it."""
    create: dict[str, Any]
    """Configuration, besides, that has it made."""
    subject: str
    """Of records that belong there."""


class Harness(ABC):
    """One backend, made ready for one scenario: an empty destination, a service that runs."""

    kind: type[Sink]
    subject = ""
    restarts = 2
    """How often the scenario of a restart in mid-batch does it."""

    @property
    def features(self) -> Features:
        return self.kind.features

    def make_sink(self, **overrides: Any) -> Sink:
        """A sink that is not open yet; `overrides` replace keys of its configuration."""
        return self.kind(self.kind.config_model.model_validate(self.config() | overrides), PIPELINE)

    @abstractmethod
    def config(self) -> dict[str, Any]: ...

    @abstractmethod
    def read_all(self) -> list[Seen]:
        """Everything that a receiver finds in the destination now, in order."""

    @abstractmethod
    def stall(self) -> AbstractContextManager[object]:
        """For the length of the context the backend is there, and does not move."""

    def stop(self) -> None:
        """Only for sinks that use a network: the backend goes away, with nothing that it confirmed."""
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def wrong_credentials(self) -> dict[str, Any]:
        """Configuration that the backend refuses. Its values must not be in any error."""
        raise NotImplementedError

    def missing_destination(self) -> Missing:
        raise NotImplementedError
