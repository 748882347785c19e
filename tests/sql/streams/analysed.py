"""Plans as a worker makes them, in a session of a test."""

import psycopg
from psycopg.types.json import Jsonb

from relay.reasons import reason_of
from relay.stream_tables import VERSION, Described, Plan, Read, Unsupported, analyse
from tests.sql.streams.streams import Connection, pipeline


def analyse_and_keep(connection: Connection, name: str) -> str | None:
    """Analyses the query of a stream table, and keeps its plan; the reason if there is none."""
    line = pipeline(connection, name)
    connection.execute("select tide.stream_prepare(%s, %s)", [line, VERSION])
    try:
        plan = plan_of(connection, name).to_json()
    except Unsupported as unsupported:
        plan = {"version": VERSION, "reason": str(unsupported)}
    connection.execute("select tide.stream_keep(%s, %s)", [line, Jsonb(plan)])
    return plan.get("reason")


def plan_of(connection: Connection, name: str) -> Plan:
    line = pipeline(connection, name)

    def read(text: str) -> Read:
        try:
            [(found,)] = connection.execute("select tide.stream_read(%s, %s)", [line, text]).fetchall()
        except psycopg.Error as error:
            raise Unsupported(reason_of(error)) from error
        return Read.from_json(found)

    [(described,)] = connection.execute("select tide.stream_describe(%s)", [line]).fetchall()
    return analyse(Described.from_json(described), read)
