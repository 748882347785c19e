"""pgbench: many clients, each transaction durable, statements prepared. Scripts are templates in `benchmarks/sql`."""

import re
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

from relay.embedded import _postgres_programs

SCRIPTS = Path(__file__).parent / "sql"
# Beyond the time of the run itself.
LIMIT_SECONDS = 60.0

# About 200 bytes, as an application would write it.
PAYLOAD = (
    '{"order": 1234567, "customer": "c-000421", "currency": "EUR", "total": 129.95, "lines": '
    '[{"sku": "A-1000", "qty": 2}, {"sku": "B-2000", "qty": 1}], "note": "leave at the door", "status": "created"}'
)


@contextmanager
def running(
    url: str, script: str, *, clients: int, seconds: float, rate: int | None, **variables: str | int
) -> Iterator["subprocess.Popen[str]"]:
    """A pgbench in the background; it ends by itself, or with the block. `rate` is in transactions per second."""
    text = Template((SCRIPTS / script).read_text()).substitute(payload=PAYLOAD, **variables)
    command = [str(_postgres_programs(18) / "pgbench"), "--no-vacuum", "--protocol=prepared"]
    command += [f"--client={clients}", f"--jobs={min(2, clients)}", f"--time={round(seconds) + 1}", "--progress=1"]
    if rate:
        command.append(f"--rate={rate}")
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(text)
        file.flush()
        process = subprocess.Popen(
            [*command, f"--file={file.name}", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def finish(process: "subprocess.Popen[str]", limit_seconds: float) -> float:
    """Waits for a running one. Transactions per second; raises RuntimeError with what pgbench said.

    Without the first second: in it each session connects, compiles and plans, once.
    """
    _, errors = process.communicate(timeout=limit_seconds)
    rates = [float(rate) for rate in re.findall(r"^progress: [\d.]+ s, ([\d.]+) tps", errors, re.MULTILINE)]
    if process.returncode or len(rates) < 2:
        raise RuntimeError(f"pgbench failed: {errors.strip()}")
    return statistics.mean(rates[1:])


def transactions_per_second(url: str, script: str, *, clients: int, seconds: float, **variables: str | int) -> float:
    """Runs a script over and over, as fast as it goes."""
    with running(url, script, clients=clients, seconds=seconds, rate=None, **variables) as process:
        return finish(process, seconds + LIMIT_SECONDS)
