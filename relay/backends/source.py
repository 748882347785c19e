"""The source seam: where a reverse pipeline receives from.

A source is six methods of I/O, and two that convert a message. Everything else (event ids, wire formats, writing to
the inbox once, dead letters, retry times) is decided above it, once, for all sources. The caller's cycle: `receive`
(`fetch` and `convert`), write to PostgreSQL and commit, `ack`.

`open(positions)`
    Connects and checks that what it receives from exists. `positions` is what PostgreSQL holds: for each `partition`
    the `position` of the last message whose row is committed; empty at first. A source that declares `has_positions`
    goes on right after them, whatever the server remembers. Raises `NotConnected` when the server cannot be reached
    now, `ConfigError` when someone must change something (no such stream, wrong credentials), and says what.
    Where it chose a place that a later `open` could not find again (the end of a topic, the first look at a pattern),
    it leaves in `begun` what must be stored as positions although no message came. The caller stores it once, before
    any row.
`fetch(max_messages, wait_seconds)`
    The next messages as the client has them, in order, as soon as there are any: it waits at most `wait_seconds` for
    the first (0: not at all) and not for more than that one. An empty list means that none came. What it handed out, it
    does not hand out again while it is open, unless the server itself sends it again. Bounds what it holds in memory
    (`MAX_HELD_BYTES`). Raises `NotConnected` when the connection was lost; so it does on a source that is not open.
    Nothing else but bugs. Reads of a message only what it needs to hand it out: the rest is for `convert`.
`convert(message)`
    One message of the client as a `Received`. `receive` has a net under it: whatever it raises is the failure of this
    message alone, whose neighbours arrive.
`bare(message)`
    The same without what a sender could have written in an unreadable way: the id, the body, and what `ack` and the
    position need. It cannot fail. This is how a message that `convert` cannot take becomes a dead letter.
`ack(received)`
    Tells the server that these messages are done: called after their rows, or their dead letters, are committed; with
    messages in the order in which they were received. May be called while later messages are handed out and not done.
    Acknowledging after a reconnect, or twice, is harmless. Raises `NotConnected`: the messages then come again, and the
    inbox knows them by their event ids, so nothing is stored twice.
`passed()`
    Positions behind the last messages, where nothing is left to receive before them, each once: the caller stores them,
    so that a later `open` does not miss what never was a message. Asked only when all that was handed out is
    acknowledged. Raises `NotConnected`.
`release()`
    The drain is over: gives back whatever was fetched and not acknowledged, so that another worker receives it at
    once, and asks the server for nothing more until the next `receive`. The connection may stay. The source is used
    again, without `open`, only if no other worker has drained the pipeline meanwhile.
`close()`
    `release`, and releases everything within a bounded time. May be called twice, and on a source that never opened.
    The source can be opened again.

Thread safety: one thread at a time; not always the same one. `close` alone may also be called while
another thread is inside `receive`: it waits for it, or makes it raise `NotConnected`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Generic, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeVar

from relay.errors import ConfigError
from relay.models import Received
from relay.process.unforeseen import unforeseen

MAX_HELD_BYTES = 16 * 1024 * 1024
"""What a source and its client library may hold in memory for one pipeline; a single larger message may exceed it."""


@dataclass(frozen=True, slots=True)
class SourceFeatures:
    """What a source promises. The contract suite reads it: each scenario is passed or is skipped by one of these."""

    ordered: bool = True
    """Messages come in the order in which they were sent (per partition where the system says so)."""
    has_positions: bool = False
    """Resumes from the positions stored with the rows, so that each message is written exactly once, whatever happens
    to acknowledgements."""
    redelivers: bool = True
    """What was received and not acknowledged comes again by the server's own doing."""
    keeps_headers: bool = False
    keeps_key: bool = False
    needs_source: bool = False
    """The stream, topic or queue must exist before."""
    needs_credentials: bool = False
    """The server can refuse us for who we are; `open` then raises `ConfigError`."""
    uses_network: bool = True
    one_lane: str | None = None
    """Why a pipeline from it cannot have several lanes; None where it can."""
    passive: bool = False
    """No worker drains it: a process of its own brings the messages."""
    default_wire_format: str = "raw"
    longest_wait_seconds: float = 1.0
    """How long one `receive` should be asked to wait: longer where each asking costs money. It delays a shutdown."""


class Lane(NamedTuple):
    """One of several drains that receive at the same time."""

    number: int
    """From 0 on."""
    lanes: int


ALL = Lane(0, 1)
NO_DRAINS = "no worker drains it"


class SourceConfig(BaseModel):
    """The part of a pipeline's configuration that is the source's own. Unknown keys are refused (`pipelines.py`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)

    timeout_ms: Annotated[int, Field(ge=10, le=3_600_000)] = 10_000
    """How long one `open`, `ack` or any other request to the server may take, besides the wait that was asked for."""

    def extras(self, source_type: str) -> tuple[str, ...]:
        """The extras of the distribution whose libraries it needs. One that does not exist needs none."""
        return (source_type.replace("_", "-"),)


C = TypeVar("C", bound=SourceConfig, default=Any)
"""The source's own configuration. Those above the seam know `Source` alone, of whatever configuration."""

M = TypeVar("M", default=Any)
"""A message as the source's client has it."""


class Source(ABC, Generic[C, M]):
    """See the module's text: it is the contract."""

    features: ClassVar[SourceFeatures]
    config_model: ClassVar[type[SourceConfig]]
    """The class of C."""
    needs_operator: ClassVar[frozenset[str]] = frozenset()
    """Codes of temporary failures that stay until someone changes something: see `ErrorTable`."""
    lane: "Lane" = ALL
    """Which of the messages are ours; set before `open`. Each comes to one lane only, or, where the server gives them
    to those who ask, to one at a time."""
    begun: Mapping[str, str] = MappingProxyType({})
    """What `open` decided, as positions: see there."""

    @abstractmethod
    def __init__(self, config: C, pipeline: str) -> None:
        """`config` is an instance of `config_model` with every secret resolved; `pipeline` is for messages."""

    @abstractmethod
    def open(self, positions: Mapping[str, str]) -> None: ...

    @abstractmethod
    def fetch(self, max_messages: int, wait_seconds: float) -> Sequence[M]: ...

    @abstractmethod
    def convert(self, message: M) -> Received: ...

    @abstractmethod
    def bare(self, message: M) -> Received: ...

    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        """What `fetch` gives, converted; raises what it raises."""
        return [self._converted(message) for message in self.fetch(max_messages, wait_seconds)]

    def _converted(self, message: M) -> Received:
        try:
            return self.convert(message)
        except Exception as error:  # noqa: BLE001  a bug, or something that no one has thought of
            received = self.bare(message)
            return received._replace(failure=unforeseen("reading a message", error, message=received.id))

    @abstractmethod
    def ack(self, received: Sequence[Received]) -> None: ...

    def passed(self) -> Mapping[str, str]:
        return {}

    @abstractmethod
    def release(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class PassiveSource(Source[C, Received]):
    """A source that no worker drains: a process of its own brings the messages, and this says which.

    Its features say `passive`, so that no scheduler owns its pipelines.
    """

    brought_by: ClassVar[str]
    """The command that brings them; `{pipeline}` stands for the pipeline's name."""

    def __init__(self, config: C, pipeline: str) -> None:  # noqa: ARG002
        self._pipeline = pipeline

    def open(self, positions: Mapping[str, str]) -> None:  # noqa: ARG002
        command = self.brought_by.format(pipeline=self._pipeline)
        raise ConfigError(f"pipeline {self._pipeline!r}: its messages are brought by `{command}`, not by a worker")

    def fetch(self, max_messages: int, wait_seconds: float) -> list[Received]:  # noqa: ARG002
        return []

    def convert(self, message: Received) -> Received:
        return message

    def bare(self, message: Received) -> Received:
        return message

    def ack(self, received: Sequence[Received]) -> None:
        pass

    def release(self) -> None:
        pass

    def close(self) -> None:
        pass
