"""The pods of an installed chart as processes of this machine: with the arguments and the environment of their
containers, but that addresses are of this machine, free, and that the folders of their volumes are elsewhere."""

import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM

from relay.local.server_process import free_port
from tests.chart.discovery import Object
from tests.chart.objects import command_line, main_container, of_kind, one_of
from tests.waiting import wait_until

PROGRAMS = Path(sys.executable).parent
READY_SECONDS = 120.0
STOP_SECONDS = 60.0


def environment(pod: Object, objects: list[Object]) -> dict[str, str]:
    """Of the container with our program; what a Secret holds is shown as its reference."""
    container = main_container(pod)
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        wanted = source.get("configMapRef", {}).get("name")
        for config in of_kind(objects, "ConfigMap"):
            found |= config["data"] if config["metadata"]["name"] == wanted else {}
    for variable in container["env"]:
        found[variable["name"]] = variable.get("value") or str(variable["valueFrom"])
    return found


@dataclass
class PodProcess:
    """One pod's program, in a process group of its own."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    def is_ready(self) -> bool:
        """As its readiness probe asks."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wait_ready(self) -> "PodProcess":
        def ready() -> bool:
            ended = self.process.poll()
            assert ended is None, f"ended with {ended}:\n{self.log.read_text(errors='replace')[-3000:]}"
            return self.is_ready()

        wait_until(ready, READY_SECONDS, f"a pod is ready; its log is {self.log}")
        return self

    def stop(self) -> int:
        """As Kubernetes ends a pod; the exit code."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """kill -9 of all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, SIGKILL)
        self.process.wait(STOP_SECONDS)


@dataclass
class Pods:
    """Starts pods, and ends all of them."""

    folder: Path
    postgres_url: str
    broker_url: str
    started: list[PodProcess] = field(default_factory=list)

    def start(self, objects: list[Object], deployment: str) -> PodProcess:
        """One more pod of the Deployment whose name ends so. Does not wait for it."""
        pod = one_of(objects, "Deployment", deployment)["spec"]["template"]
        program, *arguments = command_line(main_container(pod))
        port, own = free_port(), Path(tempfile.mkdtemp(dir=self.folder))
        address = "RELAY_WORKER_METRICS_ADDR" if program == "dramatiq" else "RELAY_METRICS_ADDR"
        # A container has nothing of ours but what the chart gives it.
        given = {"PATH": os.environ["PATH"]} | environment(pod, objects) | {
            "RELAY_POSTGRES_URL": self.postgres_url, "RELAY_BROKER_URL": self.broker_url,
            address: f"127.0.0.1:{port}", "TMPDIR": str(own), "RELAY_SINK_FOLDERS": "/",
        }  # fmt: skip
        if "PROMETHEUS_MULTIPROC_DIR" in given:
            given["PROMETHEUS_MULTIPROC_DIR"] = str(own)
        log = own / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(PROGRAMS / program), *arguments], env=given, cwd=own, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self.started.append(PodProcess(process, port, log))
        return self.started[-1]


@contextmanager
def pods_in(folder: Path, postgres_url: str, broker_url: str) -> Iterator[Pods]:
    pods = Pods(folder, postgres_url, broker_url)
    try:
        yield pods
    finally:
        for pod in pods.started:
            pod.kill()
