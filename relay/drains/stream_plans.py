"""How a stream table is refreshed: worked out from its query here, judged and kept by PostgreSQL.

A plan saves time and decides nothing: without one, or with one that PostgreSQL refuses, a refresh computes the whole
query. So nothing that goes wrong here is an error of the stream table; its reason is kept instead.
"""

import json
from collections.abc import Callable

import psycopg
import structlog
from sqlglot.errors import SqlglotError

from relay.database.connection import custom_plans, database_errors
from relay.drains.fence import FencedSession
from relay.reasons import reason_of
from relay.stream_tables import VERSION, Described, Plan, Read, Step, Unsupported, analyse

log = structlog.get_logger(__name__)


def prepare(session: FencedSession) -> None:
    """Before a refresh: captures the sources as needed, and analyses a query that is new.

    Raises Fenced, NotConnected.
    """
    with database_errors():
        [unplanned] = session.check(session.execute("stream_prepare", version=VERSION))
    if unplanned:
        _keep(session, lambda facts: _plan(session, facts))
        # What is computed as a whole needs no rows of its sources.
        with database_errors():
            session.execute("stream_prepare", version=VERSION)


def prepare_change(session: FencedSession, sources: list[int]) -> None:
    """After a refresh that did not know how these sources change a stream table. Raises Fenced, NotConnected."""

    def keep(facts: dict[str, object]) -> None:
        for step in _analysed(session, facts).unforeseen(frozenset(sources)):
            _keep_change(session, step)

    _keep(session, keep)


def _plan(session: FencedSession, facts: dict[str, object]) -> None:
    plan = {**_analysed(session, facts).to_json(), "facts": facts["facts"]}
    session.check(session.execute("stream_keep", plan=json.dumps(plan)))


def _keep_change(session: FencedSession, step: Step) -> None:
    change = step.change
    session.check(
        session.execute(
            "stream_keep_change",
            node=step.number,
            sources=sorted(step.changed),
            strategy=change.strategy,
            form=change.form,
            text=change.text,
            reason=change.reason,
        )
    )


def _keep(session: FencedSession, keep: Callable[[dict[str, object]], None]) -> None:
    """Keeps what the analysis found, or why it found nothing."""
    with custom_plans(session.connection):
        _keep_or_say_why(session, keep)


def _keep_or_say_why(session: FencedSession, keep: Callable[[dict[str, object]], None]) -> None:
    with database_errors():
        [facts] = session.check(session.execute("stream_describe"))
    try:
        keep(facts)
    except psycopg.errors.LockNotAvailable as error:
        log.info("stream table not analysed yet", reason=reason_of(error))
    except psycopg.OperationalError:
        with database_errors():
            raise
    except psycopg.Error as error:
        _keep_reason(session, facts, f"PostgreSQL refused the plan: {reason_of(error)}")
    except Unsupported as unsupported:
        _keep_reason(session, facts, str(unsupported))
    except (RecursionError, SqlglotError) as error:
        _keep_reason(session, facts, f"its query cannot be analysed: {type(error).__name__}")


def _keep_reason(session: FencedSession, facts: dict[str, object], reason: str) -> None:
    log.info("stream table is computed as a whole", reason=reason)
    plan = {"version": VERSION, "facts": facts["facts"], "reason": reason}
    with database_errors():
        session.check(session.execute("stream_keep", plan=json.dumps(plan)))


def _analysed(session: FencedSession, facts: dict[str, object]) -> Plan:
    def read(text: str) -> Read:
        try:
            [found] = session.check(session.execute("stream_read", text=text))
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise Unsupported(reason_of(error)) from error
        return Read.from_json(found)

    return analyse(Described.from_json(facts), read)
