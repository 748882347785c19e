"""pgbench: many clients, each transaction durable, statements prepared. Scripts are templates in `benchmarks/sql`."""

import re
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template

from relay.local.servers import _postgres_programs

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
    url: str,
    script: str,
    *,
    clients: int,
    seconds: float,
    rate: int | None,
    log: Path | None = None,
    **variables: str | int,
) -> Iterator["subprocess.Popen[str]"]:
    """A pgbench in the background; it ends by itself, or with the block. `rate` is in transactions per second.

    `log`: an empty folder, from which `latencies` reads afterwards.
    """
    options = [f"--client={clients}", f"--jobs={min(2, clients)}", f"--time={round(seconds) + 1}", "--progress=1"]
    if rate:
        options.append(f"--rate={rate}")
    if log:
        options += ["--log", f"--log-prefix={log / 'transactions'}"]
    with _started(url, script, options, variables) as process:
        yield process


@contextmanager
def _started(
    url: str, script: str, options: Sequence[str], variables: Mapping[str, str | int]
) -> Iterator["subprocess.Popen[str]"]:
    text = Template((SCRIPTS / script).read_text()).substitute(payload=PAYLOAD, **variables)
    command = [str(_postgres_programs(18) / "pgbench"), "--no-vacuum", "--protocol=prepared", *options]
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
    with running(url, script, clients=clients, seconds=seconds, rate=None, log=None, **variables) as process:
        return finish(process, seconds + LIMIT_SECONDS)


def seconds_for(url: str, script: str, *, clients: int, transactions: int, **variables: str | int) -> float:
    """Runs a script so many times in each client. Seconds for all of them; raises RuntimeError."""
    options = [f"--client={clients}", f"--jobs={min(2, clients)}", f"--transactions={transactions}"]
    with _started(url, script, options, variables) as process:
        output, errors = process.communicate(timeout=10 * LIMIT_SECONDS)
        rate = re.search(r"^tps = ([\d.]+) \(without initial connection time\)", output, re.MULTILINE)
        if process.returncode or not rate or "aborted" in errors:
            raise RuntimeError(f"pgbench failed: {errors.strip()}")
        return clients * transactions / float(rate[1])


def latencies(log: Path) -> list[float]:
    """Milliseconds of each transaction of a run with a log, without its first second."""
    lines = [line.split() for path in log.iterdir() for line in path.read_text().splitlines()]
    # client, number, microseconds, script, and when it ended: seconds, microseconds
    ended = [int(line[4]) + int(line[5]) / 1e6 for line in lines]
    counted_from = min(ended) + 1
    return [int(line[2]) / 1000 for line, at in zip(lines, ended, strict=True) if at >= counted_from]
