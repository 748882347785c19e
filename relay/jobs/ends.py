"""What became of one run of a Python handler: from what it returned or raised to `Ended`."""

import logging

from relay.database.connection import storable
from relay.errors import BadValue
from relay.jobs.backoff import SHORTEST_SNOOZE_SECONDS, Backoff, bounded, pause_seconds
from relay.jobs.handlers import AnyJob
from relay.jobs.models import Ended
from relay.jobs.outcomes import Discard, Retry, Snooze
from relay.jobs.results import result_text
from relay.masking import mask
from relay.reasons import reason_of

_log = logging.getLogger(__name__)
_MOST_CHARACTERS = 2000


def succeeded(result: object) -> Ended:
    """A result that cannot be kept is no failure: the work is done, and must not be done again. The attempt says so."""
    try:
        return Ended("s", result=result_text(result))
    except BadValue as error:
        return Ended("s", code="result_dropped", error=error_text(f"the result was not kept: {error}"))


def failed(job: AnyJob, error: BaseException, attempt: int, max_attempts: int, own: Backoff | None = None) -> Ended:
    """`own` is the backoff that this job has in its options. An exception that no one foresaw is retried, too."""
    is_last = attempt >= max_attempts
    text = error_text(_said(error))
    try:
        match error:
            case Snooze(seconds=seconds):
                return Ended("b", "snoozed", text, retry_seconds=max(SHORTEST_SNOOZE_SECONDS, bounded(seconds)))
            case Discard():
                return Ended("d", "discarded", text)
            case Retry(seconds=seconds):
                pause = job.pause_seconds(attempt, own) if seconds is None else bounded(seconds)
                return Ended("d", "retry", text) if is_last else Ended("r", "retry", text, retry_seconds=pause)
        if is_last or isinstance(error, job.dead_on):
            return Ended("d", _code(error), text)
        return Ended("r", _code(error), text, retry_seconds=job.pause_seconds(attempt, own))
    except Exception:  # noqa: BLE001  a backoff is the application's code, or its data
        _log.exception("job %s: its backoff cannot be used: the default one is", job.name)
        return Ended("d" if is_last else "r", _code(error), text, retry_seconds=pause_seconds(attempt))


def error_text(text: str) -> str:
    """Short, without secrets, and such that PostgreSQL can hold it: an error must not make its job run again."""
    return storable(mask(text, most_characters=_MOST_CHARACTERS))[:_MOST_CHARACTERS]


def _said(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return str(error) if isinstance(error, Retry | Snooze | Discard) else f"{name}: {reason_of(error)}"
    except Exception:  # noqa: BLE001  it is of the application
        return f"{name}: its text cannot be read"


def _code(error: BaseException) -> str:
    return storable(type(error).__name__)[:100]
