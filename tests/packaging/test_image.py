"""The image, built step by step as its Dockerfile says, and its programs run as a container would run them.

They see the files of the image and nothing of the checkout, may write to /tmp alone, and are no root.
"""

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from relay.local.server_process import free_port
from relay.local.servers import EmbeddedRedis
from tests.packaging import dockerfile, image_build
from tests.packaging.dockerfile import CHECKOUT
from tests.packaging.image_build import Build, Built
from tests.packaging.test_image_rules import NOT_IN_THE_IMAGE
from tests.services.postgres import Database
from tests.waiting import wait_until

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("image")]

SCHEDULER = ("relay-scheduler",)
WORKERS = ("relay", "workers")
# As the chart starts a group of workers.
DRAMATIQ = (
    "dramatiq", "relay.workers", "--path", "--queues", "tide.forward", "--processes", "1", "--threads", "4",
    "--worker-shutdown-timeout", "30000", "--skip-logging",
)  # fmt: skip
API = ("relay", "api")
MIGRATE = ("relay", "migrate")
# Every command that is started here; compose.yaml starts no other.
COMMANDS = {SCHEDULER, WORKERS, API, MIGRATE}
DEADLINE_SECONDS = 120


@pytest.fixture(scope="module")
def image() -> Iterator[Built]:
    # Not pytest's folder, which is kept for three runs: it is large.
    with TemporaryDirectory(prefix="tide-image-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        yield Build(dockerfile.read(), image_build.make_context(folder / "context"), folder / "stages").run()


@pytest.fixture
def settings(empty_database: Database, redis_server: EmbeddedRedis) -> dict[str, str]:
    ports = {name: free_port() for name in ("METRICS", "WORKER_METRICS", "API", "API_METRICS")}
    return {
        "RELAY_POSTGRES_URL": empty_database.url,
        "RELAY_BROKER_URL": redis_server.url,
        "RELAY_WORKER_PROCESSES": "1",
        "RELAY_DISCOVERY_INTERVAL": "1s",
        **{f"RELAY_{name}_ADDR": f"127.0.0.1:{port}" for name, port in ports.items()},
    }


def run(image: Built, *command: str, **environment: str) -> str:
    all_of_it = image.environment | environment
    return image.root.run(command, all_of_it, cwd=image.workdir, user=image.user, read_only=True)


@contextmanager
def program(image: Built, *command: str, **environment: str) -> Iterator[None]:
    """Runs until the end of the block, and is then stopped as a container is."""
    log = image.root.folder.with_name(f"{command[0]}.log")
    with log.open("wb") as output:
        started = subprocess.Popen(
            image.root.command(command, cwd=image.workdir, user=image.user, read_only=True),
            env=image.environment | environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield
        assert started.poll() is None, log.read_text()
        started.terminate()
        assert started.wait(DEADLINE_SECONDS) == 0, log.read_text()
    finally:
        started.kill()
        started.wait()


def healthy(image: Built, **environment: str) -> bool:
    """What HEALTHCHECK says, with the settings of one container."""
    command = dockerfile.read().final.last("HEALTHCHECK").text.removeprefix("CMD")
    asked = image.root.command(json.loads(command), cwd=image.workdir, user=image.user, read_only=True)
    return subprocess.run(asked, env=image.environment | environment, capture_output=True, check=False).returncode == 0


def becomes_healthy(image: Built, settings: dict[str, str], own: str) -> None:
    """In a container, which has a network of its own: of the addresses it sees, only that of its program answers."""
    others = {name: f"127.0.0.1:{free_port()}" for name in settings if name.endswith("METRICS_ADDR") and name != own}
    wait_until(lambda: healthy(image, **settings | others), DEADLINE_SECONDS, f"{own} is healthy")


def test_the_programs_are_on_the_path(image: Built) -> None:
    for name in ("relay", "relay-scheduler", "dramatiq"):
        assert run(image, "sh", "-c", f"command -v {name}").strip() == f"/app/.venv/bin/{name}"


def test_nothing_of_the_build_is_left(image: Built) -> None:
    assert {path.name for path in image.root.at("/app").iterdir()} == {".venv", "healthcheck.py"}
    assert not image.root.at("/opt/uv").exists()
    assert run(image, "sh", "-c", "! command -v uv") == ""


def test_our_code_is_installed_and_compiled(image: Built) -> None:
    for package in ("relay", "scheduler", "workers"):
        (found,) = image.root.at("/app/.venv/lib").glob(f"python3.*/site-packages/{package}")
        assert list((found / "__pycache__").glob("*.pyc")), package


def test_the_wheel_is_built_by_what_is_pinned(image: Built) -> None:
    (built,) = image.root.at("/app/.venv/lib").glob("python3.*/site-packages/tide_relay-*.dist-info/WHEEL")
    (generator,) = re.findall(r"^Generator: (\S+) (\S+)$", built.read_text(), re.MULTILINE)
    pinned = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["uv"]["build-constraint-dependencies"]
    assert "==".join(generator) in pinned


def test_every_module_of_ours_and_every_library_of_the_extras_is_imported(image: Built) -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [one for name, listed in extras.items() if name not in NOT_IN_THE_IMAGE for one in listed]
    assert run(image, "python", "-c", IMPORT_ALL, *wanted).split()[-1] == "imported"


IMPORT_ALL = """
import importlib, importlib.metadata, pkgutil, re, sys
for name in ("relay", "scheduler", "workers"):
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, name + "."):
        if module.name not in ("relay.workers", "relay.cli.__main__"):
            importlib.import_module(module.name)
modules = {}
for module, owners in importlib.metadata.packages_distributions().items():
    for owner in owners:
        modules.setdefault(re.sub("[-_.]+", "-", owner).lower(), []).append(module)
for requirement in sys.argv[1:]:
    wanted, extra = re.match(r"([\\w-]+)(?:\\[([\\w-]+)\\])?", requirement).groups()
    more = [re.match(r"[\\w-]+", one)[0] for one in importlib.metadata.requires(wanted) or ()
            if extra and re.search(f"extra == .{extra}.", one)]
    assert extra is None or more, requirement
    for library in [wanted, *more]:
        for module in modules[re.sub("[-_.]+", "-", library).lower()]:
            if not module.startswith("_"):
                importlib.import_module(module)
print("imported")
"""


def test_nothing_can_be_changed_but_in_tmp(image: Built) -> None:
    refused = run(image, "sh", "-c", "touch /app/x || touch /x || touch /app/.venv/x || (touch /tmp/x && id -u)")
    assert refused.strip() != "0"


@pytest.mark.parametrize("workers", [WORKERS, DRAMATIQ], ids=["relay-workers", "dramatiq"])
def test_a_message_is_delivered_by_the_fleet_of_the_image(
    image: Built, settings: dict[str, str], workers: tuple[str, ...]
) -> None:
    delivered = image.root.at("/tmp/orders.jsonl")
    delivered.unlink(missing_ok=True)
    run(image, *MIGRATE, **settings)
    config = json.dumps({"sink_type": "file", "path": "/tmp/orders.jsonl"})
    publish = 'echo \'{"payload": {"order": 42}}\' | relay publish orders --create'
    run(image, "sh", "-c", f"{publish} && relay pipeline set out orders --config {shlex.quote(config)}", **settings)
    settings = settings | {"RELAY_SINK_FOLDERS": "/tmp"}
    with program(image, *SCHEDULER, **settings), program(image, *workers, **settings):
        wait_until(lambda: delivered.exists() and "42" in delivered.read_text(), DEADLINE_SECONDS, "it is delivered")
        becomes_healthy(image, settings, "RELAY_METRICS_ADDR")
        becomes_healthy(image, settings, "RELAY_WORKER_METRICS_ADDR")


def test_the_receiver_of_webhooks_is_healthy(image: Built, settings: dict[str, str]) -> None:
    run(image, *MIGRATE, **settings)
    with program(image, *API, **settings):
        becomes_healthy(image, settings, "RELAY_API_METRICS_ADDR")


def test_a_container_in_which_nothing_answers_is_not_healthy(image: Built, settings: dict[str, str]) -> None:
    assert not healthy(image, **settings)
