"""Importing what applications import imports no library that they may not have."""

import subprocess
import sys


def test_no_library_of_connections_is_imported_and_no_extra() -> None:
    code = "import sys, relay.outbox, relay.inbox; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    optional = {
        "asyncpg",
        "django",
        "fastapi",
        "psycopg2",
        "sqlalchemy",
        "sqlmodel",
        "uvicorn",
        "httpx",
        "boto3",
        "nats",
    }
    assert not optional & set(loaded.stdout.split())
