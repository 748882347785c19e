"""What a sink found out about a promise that does not hold, kept with its pipeline for `relay doctor`."""

from relay.database.connection import storable
from relay.drains.fence import FencedSession

CAUTION = "caution"
"""The row of `tide.position` in which it is."""


def keep_caution(session: FencedSession, caution: str) -> None:
    """Stores it if it is another one; an empty one says that all is well. Raises NotConnected."""
    if caution == session.start.positions.get(CAUTION, ""):
        return
    session.start.positions[CAUTION] = caution
    with session.transaction():
        session.execute("receive_positions", partitions=[CAUTION], positions=[storable(caution)])
