"""The Helm engine, as the tests speak to it. The engine runs in a process and an environment of its own."""

import itertools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.chart.api_server import ApiServer
from tests.chart.discovery import Object
from tests.chart.environment import engine_python
from tests.chart.values import CHART, in_full


class Refused(Exception):
    """What the engine says of a chart, or of values, that it does not take."""


class Engine:
    def __init__(self, process: "subprocess.Popen[str]", home: Path) -> None:
        self._process = process
        self.home = home

    def __call__(self, verb: str, **request: Any) -> Object:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"verb": verb, **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the Helm engine is gone"
        answer: Object = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer


@contextmanager
def engine(home: Path) -> Iterator[Engine]:
    """`home` is a folder of its own: what it caches of a cluster would lie in the current folder else."""
    command = [str(engine_python()), str(Path(__file__).with_name("engine.py"))]
    # It needs none of our variables, and must not use the kubeconfig or Helm of the user who runs the tests.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "HELM_DRIVER": "memory", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield Engine(process, home)
        finally:
            process.kill()


class Helm:
    """Helm, talking to one API server. Every release has a namespace of its own unless one is named."""

    def __init__(self, engine: Engine, api: ApiServer, kubeconfig: Path) -> None:
        self._engine = engine
        self._api = api
        self._namespaces = (f"ns-{number}" for number in itertools.count(1))
        self._rendered: dict[str, list[Object]] = {}
        self._kubeconfig = str(kubeconfig)
        named = {"name": "test", "cluster": {"server": api.url}}
        context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
        config = {"apiVersion": "v1", "kind": "Config", "clusters": [named], "contexts": [context]}
        users = [{"name": "test", "user": {}}]
        kubeconfig.write_text(json.dumps({**config, "users": users, "current-context": "test"}))

    @property
    def home(self) -> Path:
        """Where the engine keeps what it remembers."""
        return self._engine.home

    def new_namespace(self) -> str:
        return next(self._namespaces)

    def install(
        self, values: Object, *, release: str = "tide", namespace: str | None = None, chart: Path = CHART
    ) -> list[Object]:
        """The objects that the server was sent, hooks among them. Raises Refused."""
        return self._act("install", values, release, namespace or self.new_namespace(), chart)

    def upgrade(self, values: Object, *, namespace: str, release: str = "tide", chart: Path = CHART) -> list[Object]:
        return self._act("upgrade", values, release, namespace, chart)

    def test(self, *, namespace: str, release: str = "tide") -> list[Object]:
        """The objects of `helm test`."""
        before = len(self._api.sent(namespace))
        self._engine("test", kubeconfig=self._kubeconfig, namespace=namespace, release=release)
        return self._api.sent(namespace)[before:]

    def rendered(self, values: Object) -> list[Object]:
        """What install() and test() send with these values. Tests share it: change nothing in it.

        There is one rendering for each set of values that the templates can distinguish. The objects of `helm test` are
        read from the release, because running it takes longer. test_releases.py shows that it sends the same.
        """
        key = json.dumps(in_full(values), sort_keys=True)
        if key not in self._rendered:
            namespace = self.new_namespace()
            answer = self._run("install", values, "tide", namespace, CHART)
            self._rendered[key] = self._api.sent(namespace) + [yaml.safe_load(text) for text in answer["tests"]]
        return self._rendered[key]

    def uninstall(self, *, namespace: str, release: str = "tide") -> None:
        self._engine("uninstall", kubeconfig=self._kubeconfig, namespace=namespace, release=release)

    def history(self, *, namespace: str, release: str = "tide") -> list[str]:
        """The status of each revision, the oldest first."""
        answer = self._engine("history", kubeconfig=self._kubeconfig, namespace=namespace, release=release)
        statuses: list[str] = answer["statuses"]
        return statuses

    def lint(self, chart: Path) -> list[str]:
        """What Helm does not like in a chart, remarks left out: a level and a file each."""
        answer = self._engine("lint", kubeconfig=self._kubeconfig, chart=str(chart))
        return [message for message in answer["messages"] if not message.startswith("info")]

    def package(self, folder: Path) -> Path:
        return Path(self._engine("package", kubeconfig=self._kubeconfig, chart=str(CHART), folder=str(folder))["path"])

    def validate(self, objects: list[Object], version: str) -> tuple[list[str], set[str]]:
        """What is wrong with the objects in a version of Kubernetes, and the kinds that it does not have."""
        answer = self._engine("validate", objects=objects, version=version)
        return answer["problems"], set(answer["unknown"])

    def validate_custom(self, objects: list[Object]) -> tuple[list[str], set[str]]:
        """The same for kinds of the Prometheus operator and of KEDA."""
        answer = self._engine("validate_custom", objects=objects)
        return answer["problems"], set(answer["unknown"])

    def kubernetes_versions(self) -> list[str]:
        """Those that objects can be validated against, the oldest first."""
        versions: list[str] = self._engine("versions")["versions"]
        return versions

    def _act(self, verb: str, values: Object, release: str, namespace: str, chart: Path) -> list[Object]:
        before = len(self._api.sent(namespace))
        self._run(verb, values, release, namespace, chart)
        return self._api.sent(namespace)[before:]

    def _run(self, verb: str, values: Object, release: str, namespace: str, chart: Path) -> Object:
        return self._engine(
            verb, kubeconfig=self._kubeconfig, namespace=namespace, release=release, chart=str(chart), values=values
        )
