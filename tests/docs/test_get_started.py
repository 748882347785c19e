"""Getting started with pip, as it is printed: in an empty folder, with the built wheel, to a message at the other end.

Replaced are addresses, paths, the program that makes the environment, and what it is given: this wheel, and not the
one of the package index.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relay.local.servers import EmbeddedRedis
from tests.cli.command import environment
from tests.docs.pages import blocks, substituted, text_of
from tests.packaging.test_wheel import CHECKOUT, wheel
from tests.paths import REACH
from tests.services.postgres import Database
from tests.waiting import wait_until

__all__ = ["wheel"]

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("get-started")]
PIP = "pip install 'tide-relay[embedded]'"
FREE_PORTS = {
    f"RELAY_{name}_ADDR": "127.0.0.1:0" for name in ("METRICS", "WORKER_METRICS", "API", "API_METRICS")
}  # fmt: skip


def installing(wheel: Path) -> str:
    """pip's work. By uv, where the checkout has it, which takes what it can from its cache."""
    [*found] = CHECKOUT.glob(".cache/uv-*/bin/uv")
    return f"{found[0]} pip install --quiet '{wheel}[embedded]'" if found else PIP.replace("tide-relay", str(wheel))


class Folder:
    """An empty folder, and terminals in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir(parents=True, exist_ok=True)
        ours = environment(**FREE_PORTS, PATH="/usr/local/bin:/usr/bin:/bin")
        self.environment = {name: value for name, value in ours.items() if name not in REACH}

    def run(self, script: str, *, timeout_seconds: float = 120) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.path, env=self.environment,
            capture_output=True, text=True, timeout=timeout_seconds, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def running(self, script: str) -> Iterator[Callable[[], str]]:
        """Until the end of the context. Gives its output so far, and fails when it has ended."""
        log = self.path / "output.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-euc", script], cwd=self.path, env=self.environment,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

        def so_far() -> str:
            assert process.poll() is None, log.read_text()
            return log.read_text()

        try:
            yield so_far
        finally:
            # Not SIGINT, which a shell has its background processes ignore.
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
            wait_until(lambda: not has_members(process.pid), 60, "every program of the terminal has ended")
            print(f"output of the terminal:\n{log.read_text()}")


def has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def installed(wheel: Path, run_dir: Path) -> Path:
    """A folder in which the page's first block was run: it has `tide/bin/activate`. PostgreSQL, which root runs as
    another user, must be able to read it; pytest's own folders are root's alone."""
    folder = Folder(run_dir / "get-started")
    block = blocks("get-started/pip", "sh")[0].replace("python3 ", f"{sys.executable} ")
    assert PIP in block
    folder.run(block.replace(PIP, installing(wheel)), timeout_seconds=400)
    return folder.path


def lines(path: Path) -> list[object]:
    return [json.loads(line)["payload"] for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def test_from_nothing_to_a_message_in_a_file(installed: Path, own_dirs: Callable[[], Path]) -> None:
    _, up, application, deliver, look, publish, *_ = blocks("get-started/pip", "sh")
    folder = Folder(own_dirs())
    (folder.path / "tide").symlink_to(installed / "tide")
    (folder.path / "app.py").write_text(blocks("get-started/pip", "python")[0])
    activate, *_ = application.splitlines()
    delivered = folder.path / "tide-data" / "files" / "orders.jsonl"
    with folder.running(f"{activate}\nexec {up}") as output:
        wait_until(lambda: "Other verbs find the database" in output(), 120, "relay up is up")
        folder.run(application)
        folder.run(f"{activate}\n{deliver}")
        wait_until(lambda: lines(delivered), 120, "the message is in the file")
        printed = json.loads(folder.run(look))
        shown = json.loads(blocks("get-started/pip", "json")[0])
        assert printed | {"created_at": None} == shown | {"created_at": None}
        folder.run(f"{activate}\n{publish}")
        wait_until(lambda: len(lines(delivered)) == 2, 120, "so is the next")


def test_with_servers_of_ones_own(
    installed: Path, empty_database: Database, redis_server: EmbeddedRedis, own_dirs: Callable[[], Path]
) -> None:
    *_, start, doctor = blocks("get-started/pip", "sh")
    folder = Folder(own_dirs())
    put = {"postgresql://app@localhost/app": empty_database.url, "redis://localhost:6379/0": redis_server.url}
    urls = {"RELAY_POSTGRES_URL": empty_database.url, "RELAY_BROKER_URL": redis_server.url}
    with folder.running(f". {installed}/tide/bin/activate\n{substituted(start, put)}\nwait"):
        folder.environment |= urls

        def is_well() -> bool:
            return "all right" in folder.run(
                f". {installed}/tide/bin/activate\n{doctor.strip()} && echo all right || true"
            )

        wait_until(is_well, 120, "the doctor is content")


# The library that tide-relay brings, in the place of a program that not every machine has.
RUN = "import sys, psycopg; psycopg.connect(sys.argv[1], autocommit=True).execute(sys.argv[3])"
PSQL = f"psql() {{ python -c '{RUN}' \"$@\"; }}"


def test_jobs_in_five_minutes(installed: Path, own_dirs: Callable[[], Path]) -> None:
    _, up, order, look, other_language = blocks("jobs/index", "sh")
    folder = Folder(own_dirs())
    (folder.path / "tide").symlink_to(installed / "tide")
    for name, text in zip(("shop.py", "order.py"), blocks("jobs/index", "python"), strict=True):
        assert f"`{name}`" in text_of("jobs/index")
        (folder.path / name).write_text(text)
    enter = "".join(f"{line}\n" for line in order.splitlines() if line.startswith(". "))
    with folder.running(f". tide/bin/activate\nexec {up}") as output:
        assert "`ready to run jobs`" in text_of("jobs/index")
        wait_until(lambda: "ready to run jobs" in output(), 120, "workers have made the queue")
        folder.run(order)
        wait_until(lambda: "receipt for order 42" in output(), 120, "the handler has run")
        wait_until(lambda: "succeeded" in folder.run(enter + look), 120, "the job is listed")
        folder.run(f"{enter}{PSQL}\n{other_language}")
        wait_until(lambda: "receipt for order 43" in output(), 120, "so has that of the other")


def test_each_block_is_of_a_kind_that_a_test_runs() -> None:
    for page, kinds in (("get-started/pip", {"sh", "python", "json"}), ("jobs/index", {"sh", "python"})):
        assert {line[3:] for line in text_of(page).splitlines() if line.startswith("```")} == kinds | {""}
