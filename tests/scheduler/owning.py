"""Taking pipelines by hand, as Ownership does."""

from typing import Any

from relay.operations.locks import slot_of
from relay.process.metrics import PipelineLabels
from scheduler.session import Session
from scheduler.state import Spec


def spec(name: str, revision: int = 1, lanes: int = 1) -> Spec:
    """Of a pipeline, or of lane N of one: `orders/N`."""
    labels = PipelineLabels(name.partition("/")[0], "forward", "memory")
    return Spec(name, "orders", revision, 30_000, 1.0, labels, lanes=lanes)


def own(session: Session, *names: str) -> list[str]:
    """Those of these pipelines, of no group, that the session owns from now on."""
    slots = [slot_of(name, "") for name in names]
    taken = session.take_slots(slots, [1] * len(slots), len(slots))
    revisions = {row["name"]: row["revision"] for row in session.pipelines(names)}
    found = [spec(name, revisions[name]) for name, slot in zip(names, slots, strict=True) if slot in taken]
    adopted = session.adopt(found)
    return sorted(adopted)


def raised(session: Session, name: str) -> list[Any]:
    return session.raise_epochs([spec(name)])


def let_go(session: Session, name: str) -> None:
    session.release([name])
    session.release_slots([slot_of(name, "")])
