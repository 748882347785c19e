"""Taking pipelines by hand, as Ownership does."""

from relay.operations.locks import slot_of
from scheduler.session import Session


def own(session: Session, *names: str) -> list[str]:
    """Those of these pipelines, of no group, that the session owns from now on."""
    slots = [slot_of(name, "") for name in names]
    taken = session.take_slots(slots, [1] * len(slots), len(slots))
    revisions = {row["name"]: row["revision"] for row in session.pipelines(names)}
    adopted = session.adopt({name: revisions[name] for name, slot in zip(names, slots, strict=True) if slot in taken})
    return sorted(adopted)


def let_go(session: Session, name: str) -> None:
    session.release([name])
    session.release_slots([slot_of(name, "")])
