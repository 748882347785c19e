"""An application that works an inbox off: `python -m tests.inbox.app URL INBOX`, killed at any moment."""

import sys
import time
from typing import Any

import psycopg

from relay import inbox


def handle(connection: "psycopg.Connection[Any]", message: inbox.InboxMessage) -> None:
    """Has an effect that would be seen twice; and takes its time, so that a kill finds it at work."""
    connection.execute("insert into public.effect (event_id) values (%s)", [message.event_id])
    time.sleep(0.005)


if __name__ == "__main__":
    inbox.run(sys.argv[1], sys.argv[2], handle, visibility_seconds=1, poll_seconds=0.2)
