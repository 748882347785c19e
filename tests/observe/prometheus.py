"""A real Prometheus that scrapes a fleet and evaluates rules: Debian's package, unpacked by `install-prometheus`."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from relay.local.server_process import ServerProcess
from tests.services.unavailable import unavailable

ROOT = Path(__file__).parents[2]
# A slow machine may take its time: a scrape that takes longer than this is abandoned, and looks like a lost process.
SCRAPE_INTERVAL = "1s"


def program(name: str) -> str:
    """`prometheus` or `promtool`: that of this checkout, or that of the system."""
    unpacked = ROOT / ".cache" / "prometheus" / "usr" / "bin" / name
    found = str(unpacked) if unpacked.exists() else shutil.which(name)
    if found is None:
        unavailable(f"{name} is not there (make services-prometheus)")
    return found


def promtool(*arguments: str | Path) -> tuple[bool, str]:
    """Whether promtool is content, and what it says."""
    command = [program("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode == 0, done.stdout + done.stderr


class PrometheusServer(ServerProcess):
    """Scrapes what `scrape` names, and evaluates the rules as often as it scrapes."""

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, data_dir: Path, rules: Sequence[Path] = ()) -> None:
        super().__init__(data_dir)
        self._rules = rules
        self._targets = self.data_dir / "targets.json"
        self._client = httpx.Client(timeout=30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        if not self._targets.exists():
            self._targets.write_text("[]")
        configuration = {
            "global": {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": SCRAPE_INTERVAL},
            "rule_files": [str(path) for path in self._rules],
            "scrape_configs": [
                {"job_name": "fleet", "file_sd_configs": [{"files": [str(self._targets)], "refresh_interval": "1s"}]}
            ],
        }
        path = self.data_dir / "prometheus.yml"
        path.write_text(json.dumps(configuration))
        arguments = [
            f"--config.file={path}",
            f"--storage.tsdb.path={self.data_dir / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        return [program("prometheus"), *arguments], {"cwd": self.data_dir}

    def answers(self) -> bool:
        try:
            return self._client.get(f"{self.url}/-/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        super().stop()
        self._client.close()

    def scrape(self, ports: Mapping[str, int], **labels: str) -> None:
        """From now on these, and no others, each with these labels and a `pod` of its name."""
        targets = [{"targets": [f"127.0.0.1:{port}"], "labels": {"pod": pod, **labels}} for pod, port in ports.items()]
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps(targets))
        os.replace(new, self._targets)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Each series of the answer: its labels, and `value` as text."""
        answer = self._get("query", query=expression)
        assert answer["resultType"] == "vector", f"{expression} gives no vector but a {answer['resultType']}"
        return [found["metric"] | {"value": found["value"][1]} for found in answer["result"]]

    def history(self, expression: str, seconds: float) -> list[dict[str, str]]:
        """The labels of each series that the expression gave within so many seconds: what a panel would show."""
        now = time.time()
        answer = self._get("query_range", query=expression, start=str(now - seconds), end=str(now), step="1s")
        return [found["metric"] for found in answer["result"]]

    def series(self, names: str) -> list[dict[str, str]]:
        """The labels of every series whose name matches, of now and of before."""
        return list(self._get("series", **{"match[]": f'{{__name__=~"{names}"}}'}))

    def rules(self) -> list[dict[str, Any]]:
        """Every alert: name, health, state, when it was last evaluated, and what is pending or firing."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: str) -> Any:
        answer = self._client.get(f"{self.url}/api/v1/{what}", params=parameters).json()
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        return answer["data"]
