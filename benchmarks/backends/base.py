"""What a benchmark asks of a backend, for each direction.

A place is a topic, stream, queue, path, inbox or prefix. Each round of each variant has one of its own: what is there
already must not count, nor slow anything down.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from benchmarks.bare import Batches, InboxRow

Write = Callable[[Sequence[InboxRow]], None]
"""Writes a batch to the floor's inbox and commits."""


class Destination(ABC):
    """Where messages go."""

    @abstractmethod
    def config(self, place: str, backlog: int) -> dict[str, object]:
        """The keys of the pipeline."""

    @abstractmethod
    def deliver(self, batches: Batches, place: str, backlog: int) -> None:
        """The floor: makes a client, and sends each batch by its plain way, waiting until all of it is confirmed."""

    def deliver_bodies(self, batches: Batches, place: str) -> None:
        """The same without headers, where that is measured too."""
        raise NotImplementedError

    @abstractmethod
    def count(self, place: str) -> int:
        """How many messages are there now, as the backend says."""

    def make(self, place: str) -> None:  # noqa: B027 (most have nothing to do)
        """Before a round."""

    def remove(self, place: str) -> None:  # noqa: B027
        """After it."""


class Origin(ABC):
    """Where messages come from: filled once, read again in each round by a new consumer."""

    @abstractmethod
    def fill(self, payload: str, headers: Sequence[dict[str, str]]) -> None:
        """Puts one message there for each set of headers."""

    @abstractmethod
    def config(self, place: str) -> dict[str, object]:
        """The keys of the pipeline; the place is a consumer group here."""

    @abstractmethod
    def receive(self, place: str, batch: int, messages: int, write: Write) -> None:
        """The floor: makes a client; fetches each batch by its plain way, writes it, acknowledges it."""
