"""Jobs in the tests of an application.

- `recorded()` keeps what is enqueued; nothing is sent, and nothing runs.
- `inline()` runs each job when it is enqueued.
- `run_due(connection)` runs what is due as a worker does, inside of the test's own transaction: it sees the jobs that
  the test enqueued there, and rolls back with it.
"""

from relay.jobs.registry import own_handlers
from relay.jobs.testing.due import Ran, run_due, run_due_async
from relay.jobs.testing.inline import inline
from relay.jobs.testing.recorder import Recorded, RecordedBatch, Recorder, recorded

__all__ = [
    "Ran",
    "Recorded",
    "RecordedBatch",
    "Recorder",
    "inline",
    "own_handlers",
    "recorded",
    "run_due",
    "run_due_async",
]
