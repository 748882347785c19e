"""Stream tables of mode IMMEDIATE, handed over to their writers as a worker does it."""

from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.streams import Connection, create, pipeline, refresh


def maintain(connection: Connection, name: str, query: str, **options: object) -> None:
    create(connection, name, query, **{"refresh_mode": "IMMEDIATE", **options})
    hand_over(connection, name)


def hand_over(connection: Connection, name: str) -> None:
    """What the drains of a worker do until writers maintain it."""
    reason = analyse_and_keep(connection, name)
    assert reason is None, reason
    refresh(connection, name)
    row = connection.execute("select tide.stream_immediate_begin(%s)", [pipeline(connection, name)]).fetchone()
    assert row == (True,)
