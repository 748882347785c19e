"""What PostgreSQL refuses of jobs, so that callers can answer each kind in its own way."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from psycopg import errors

from relay.errors import ConfigError


class NoSuchJob(ConfigError):
    """There is no such job, queue or attempt (any more)."""


class NotPossible(ConfigError):
    """The job or queue is in a state in which that cannot be done."""


class KeyInUse(ConfigError):
    """The idempotency key belongs to a job with another name or payload."""


@contextmanager
def refusals() -> Iterator[None]:
    """What PostgreSQL says of what is not there, of states and of keys has errors of its own."""
    try:
        yield
    except ConfigError as error:
        for cause, kind in _KINDS.items():
            if type(error) is ConfigError and isinstance(error.__cause__, cause):
                raise kind(str(error)) from error.__cause__
        raise


_KINDS: Mapping[type[Exception], type[ConfigError]] = {
    errors.UndefinedObject: NoSuchJob,
    errors.ObjectNotInPrerequisiteState: NotPossible,
    errors.DuplicateObject: NotPossible,
    errors.UniqueViolation: KeyInUse,
}
