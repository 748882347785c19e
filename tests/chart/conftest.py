from collections.abc import Iterator

import pytest

from tests.chart.api_server import ApiServer, api_server
from tests.chart.helm import Engine, Helm, engine
from tests.chart.values import OLDEST_KUBERNETES


@pytest.fixture(scope="session")
def _engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture(scope="session")
def api() -> Iterator[ApiServer]:
    """A cluster of the oldest Kubernetes that the chart takes, with the Prometheus operator and KEDA."""
    with api_server(f"{OLDEST_KUBERNETES}.0") as server:
        yield server


@pytest.fixture(scope="session")
def helm(_engine: Engine, api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(_engine, api, tmp_path_factory.mktemp("helm") / "kubeconfig")
