"""What goes wrong with jobs on the side of the application.

JobError
├── BadArguments          the arguments do not fit the signature of the handler
├── BadOptions            an option of a job, or of `@job`, is invalid
├── UnknownQueue          the queue does not exist; the text says how to create it
├── QueueDisabled         the queue takes no jobs now
├── IdempotencyConflict   the key was used before, for other content; the text names the first job
├── JobTooLarge           the payload exceeds the limit of the queue
├── UnknownReference      a job that another needs, or an open batch of this number, does not exist
├── LeaseLost             another worker has the job now: roll back what the handler did
├── EnqueueNotAllowed     the role of the connection has no right to enqueue
└── HandlerError          handlers of this process: two of one name, a module that cannot be imported, an unknown name

Each that PostgreSQL raises has its error as the cause, and leaves the caller's transaction aborted, as any statement
that fails does: roll it back, or roll back to your savepoint. Nothing is rolled back here. Before BadArguments and
BadOptions nothing was sent.
"""

from contextlib import AbstractContextManager

from relay.errors import BadValue, ConfigError, Conflict, Disabled, NotAllowed, NotFound, Refused, RelayError, TooLarge


class JobError(RelayError):
    """The root of the family."""


class BadArguments(JobError, BadValue):
    """The arguments of a job do not fit its handler."""


class BadOptions(JobError, BadValue):
    """An option has an invalid value."""


class UnknownQueue(JobError, NotFound):
    """The queue does not exist in this database."""


class QueueDisabled(JobError, Disabled):
    """The queue takes no jobs now."""


class IdempotencyConflict(JobError, Conflict):
    """The idempotency key belongs to a job of other content."""


class JobTooLarge(JobError, TooLarge):
    """The payload is larger than the queue allows."""


class UnknownReference(JobError, NotFound):
    """A job of `after` does not exist (any more), or no batch of this number is open."""


class LeaseLost(JobError, Disabled):
    """The job is not this worker's any more."""


class EnqueueNotAllowed(JobError, NotAllowed):
    """The role of the connection may not enqueue."""


class HandlerError(JobError, ConfigError):
    """The handlers of this process do not fit together, or one is missing."""


class _OtherRefusal(JobError, Refused):
    """What PostgreSQL refuses for another reason."""


_OF_JOBS: dict[type[Refused], type[Refused]] = {
    BadValue: BadOptions,
    NotFound: UnknownQueue,
    Disabled: QueueDisabled,
    Conflict: IdempotencyConflict,
    TooLarge: JobTooLarge,
    NotAllowed: EnqueueNotAllowed,
}
_NO_SUCH_ROW = "P0002"
"""Of what a job refers to; of the queue itself it is another."""


class _JobErrors:
    """Not a generator, as that of `relay.database.callers.refusals`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Refused) and not isinstance(error, JobError):
            raise _of_family(error) from error.__cause__


def _of_family(error: Refused) -> Refused:
    hint = ". Let it: select tide.grant_job_publisher('ROLE');" if isinstance(error, NotAllowed) else ""
    kind = UnknownReference if error.sqlstate == _NO_SUCH_ROW else _OF_JOBS.get(type(error), _OtherRefusal)
    return kind(f"{error}{hint}", sqlstate=error.sqlstate)


_job_errors = _JobErrors()


def job_errors() -> AbstractContextManager[None]:
    """Raises errors of this family for what is refused."""
    return _job_errors
