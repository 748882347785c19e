"""Imported by the processes of a fleet, and by nothing else: the table of sinks stays as it is for other tests.

TEST_KNOWS_MIGRATION makes the process one of a later version: it knows one migration more.
"""

import os

import relay.database.migrate
from relay.backends.registry import SINKS
from relay.sql import Migration, migrations

SINKS["recording"] = "tests.fleets.recording_sink:RecordingSink"

if number := os.environ.get("TEST_KNOWS_MIGRATION"):
    _later = (*migrations(), Migration(int(number), "later", "select 1;"))
    relay.database.migrate.migrations = lambda: _later  # type: ignore[assignment]
