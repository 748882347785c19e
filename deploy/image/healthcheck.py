"""The health of the program that runs in this container: exit code 0 if it says that it is well.

A container runs one program, so of their addresses one answers. Needs no library, because it runs every few seconds.
"""

import http.client
import os
import sys

TIMEOUT_SECONDS = 4.0
DEFAULTS = {"METRICS_ADDR": "0.0.0.0:9090", "WORKER_METRICS_ADDR": "0.0.0.0:9191", "API_METRICS_ADDR": "0.0.0.0:9292"}
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "::1"}  # noqa: S104


def local(address: str) -> tuple[str, int]:
    """Where an address to listen on is reached from here."""
    host, _, port = address.rpartition(":")
    return _EVERYWHERE.get(host, host.strip("[]")), int(port)


def answers() -> list[int]:
    """The HTTP status of each program that listens."""
    found = []
    for name, default in DEFAULTS.items():
        address = os.environ.get(f"RELAY_{name}") or os.environ.get(f"PGTRICKLE_RELAY_{name}") or default
        connection = http.client.HTTPConnection(*local(address), timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/health")
            found.append(connection.getresponse().status)
        except ConnectionRefusedError:
            continue  # another program's address
        except (OSError, http.client.HTTPException):
            found.append(0)
        finally:
            connection.close()
    return found


if __name__ == "__main__":
    seen = answers()
    if seen and all(status == http.client.OK for status in seen):
        sys.exit(0)
    print(f"not well: {seen or 'nothing answers'}", file=sys.stderr)  # noqa: T201
    sys.exit(1)
