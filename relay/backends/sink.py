"""The sink seam: how a forward pipeline delivers.

A sink is three methods of I/O. Everything else (templates, wire formats, retry times, dead letters,
the offset) is decided above it, once, for all sinks.

`open()`
    Connects and checks that the destination exists. Called before the first `publish`, and again after
    `NotConnected`. Raises `NotConnected` when the backend cannot be reached now, `ConfigError` when someone
    must change something (no such stream, wrong credentials), and says what.
`publish(records)`
    Sends a batch in order and returns only when the backend has confirmed every record durably, or said
    otherwise. An empty list means that all were delivered; a `Failure` names each record that was not.
    After a temporary failure at index i, later records of the batch may or may not have been delivered:
    the caller sends everything from i again. A sink that declares `ordered` never delivers a record before an
    earlier one of the same key that was not delivered, except over a permanent failure.
    Raises `NotConnected` when the connection was lost, in which case any part of the batch may have been
    delivered; so it does on a sink that is not open. Raises nothing else but bugs.
    Takes at most `config.timeout_ms` plus a moment.
`begin(drain, offset_id)`
    A drain begins on this open sink; `offset_id` is what PostgreSQL has settled. Only a sink whose backend keeps the
    offset in one transaction with the records has anything to do: it fences the drain before it, and returns how far
    it has come, at least `offset_id`. The drain goes on from there. Raises what `open` raises.
`close()`
    Releases everything within a bounded time. May be called twice, and on a sink that never opened.
    Loses nothing: what `publish` confirmed is already durable. The sink can be opened again.

Thread safety: one thread at a time; not always the same one. `close` alone may also be called while
another thread is inside `publish`: it waits for it, or makes it raise `NotConnected`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeVar

from relay.models import Drain, Failure, Progress, Record

if TYPE_CHECKING:
    from relay.database.connection import Connection


@dataclass(frozen=True, slots=True)
class Features:
    """What a sink promises. The contract suite reads it: each scenario is passed or is skipped by one of these."""

    ordered: bool = True
    """Records of one batch, and of one batch after the other, arrive in order (per key where the backend says so)."""
    deduplicates: bool = False
    """A record sent twice (same `dedup_id`) arrives once, at least within a stated window."""
    keeps_headers: bool = False
    """Headers travel outside the body; where False, only an enveloping wire format carries them."""
    keeps_key: bool = False
    """The key travels outside the body."""
    largest_record_bytes: int | None = None
    """Body size from which a record is refused permanently; None where the backend has no limit."""
    largest_batch: int | None = None
    """How many records one `publish` takes at most; None where there is no limit."""
    needs_destination: bool = False
    """The destination (stream, topic, queue) must exist before."""
    needs_credentials: bool = False
    """The backend can refuse us for who we are; `open` then raises `ConfigError`."""
    cloudevents_binding: Literal["kafka", "http", "nats", "amqp"] | None = None
    """How CloudEvents attributes travel in its headers; None: CloudEvents are sent structured."""
    uses_network: bool = True
    """False for sinks that cannot lose a connection."""
    default_wire_format: str = "raw"
    default_subject: str = "{outbox}"
    """The subject template used when the pipeline names none; empty where subjects mean nothing."""
    subject_key: str | None = None
    """The key of the sink's configuration that is its subject template, such as `topic`: `subject_template` under the
    backend's own name. The sink's `config_model` does not have it; the sink finds the result in `Record.subject`."""
    subject_aliases: tuple[str, ...] = ()
    """Further names of that key."""
    subject_required: bool = False
    """There is no sensible default: the pipeline must name a template."""


class SinkConfig(BaseModel):
    """The part of a pipeline's configuration that is the sink's own. Unknown keys are refused (`pipelines.py`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)

    timeout_ms: Annotated[int, Field(ge=10, le=3_600_000)] = 10_000
    """How long one `publish` or `open` may take.

    Must be below `visibility_timeout_ms`, so that no publish outlives its lease.
    """

    def extras(self, sink_type: str) -> tuple[str, ...]:
        """The extras of the distribution whose libraries it needs. One that does not exist needs none."""
        return (sink_type.replace("_", "-"),)


C = TypeVar("C", bound=SinkConfig, default=Any)
"""The sink's own configuration. Those above the seam know `Sink` alone, of whatever configuration."""


class Sink(ABC, Generic[C]):
    """See the module's text: it is the contract."""

    features: ClassVar[Features]
    config_model: ClassVar[type[SinkConfig]]
    """The class of C."""
    needs_operator: ClassVar[frozenset[str]] = frozenset()
    """Codes of temporary failures that stay until someone changes something: see `ErrorTable`."""

    keeps_offset = False
    """Whether the backend keeps the offset in one transaction with the records: see `begin`. Then a message that never
    reaches the sink must be settled before a later one is published."""
    caution = ""
    """A sentence for operators, kept with the pipeline: which promise of its configuration the backend breaks."""

    @abstractmethod
    def __init__(self, config: C, pipeline: str) -> None:
        """`config` is an instance of `config_model` with every secret resolved; `pipeline` is for messages."""

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def publish(self, records: Sequence[Record]) -> list[Failure]: ...

    @classmethod
    def features_for(cls, config: C) -> Features:  # noqa: ARG003
        """What a sink of this configuration promises, where that depends on it."""
        return cls.features

    def begin(self, drain: Drain, offset_id: int) -> Progress:  # noqa: ARG002
        return Progress(offset_id)

    @abstractmethod
    def close(self) -> None: ...


class TransactionalSink(Sink[C]):
    """A sink that can write in the very transaction that settles, where it writes to the pipeline's own database."""

    transactional: bool
    """Whether it does. `use_transaction` is then called at the start of each drain, and `publish` in a transaction."""

    @property
    def inbox(self) -> str | None:
        """The inbox of this database whose rows it writes, if PostgreSQL can move raw messages there by itself."""
        return None

    @abstractmethod
    def use_transaction(self, connection: "Connection") -> None:
        """The drain's own connection, on which `publish` writes, and neither commits nor rolls back."""


@dataclass(frozen=True, slots=True)
class ObjectLimits:
    """How much becomes one object; the first limit that is reached counts."""

    max_rows: int
    max_bytes: int
    max_age_ms: int
    """Of the oldest message: when it is as old as that, what there is becomes an object."""


class ObjectSink(Sink[C]):
    """A sink that writes many batches as one object. `publish` makes an object of one batch.

    The drain (`workers/objects.py`) first commits up to which message the object will reach, so that after a crash the
    same messages are written again, under the same name. It settles only what was sealed.
    """

    limits: ObjectLimits

    @abstractmethod
    def append(self, records: Sequence[Record]) -> list[Failure]:
        """Adds to the object in hand, in bounded memory. Returns permanent failures only. Raises `NotConnected`."""

    @abstractmethod
    def seal(self) -> None:
        """Writes the object in hand, named after its first and last message; nothing if it is empty.

        Returns when it is durable. Raises `NotConnected`, after which the object is gone, and is gathered again.
        """

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        failures = self.append(records)
        self.seal()
        return failures
