"""The chart's own arguments and environment, run: a lost scheduler, and workers that become more, under load."""

import json
from pathlib import Path

import pytest

from tests.chart.discovery import Object
from tests.chart.helm import Helm
from tests.chart.running import Pods, pods_in
from tests.chart.values import minimal
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.timeout(900)]

PIPELINES = 6
FORWARD, SCHEDULER, MAINTENANCE = "workers-forward", "scheduler", "workers-maintenance"


class Load:
    """Outboxes with a pipeline each into a file, and what was published to them."""

    def __init__(self, database, folder: Path):
        self._db, self._folder = database.connect(), folder
        self.published: dict[str, list[int]] = {f"p{number}": [] for number in range(PIPELINES)}
        for name in self.published:
            self._db.execute("select tide.outbox_create(%s)", [name])
            config = {"sink_type": "file", "path": str(folder / name), "wire_format": "envelope"}
            self._db.execute("select tide.relay_set_outbox(%s, %s, %s)", [name, name, json.dumps(config)])

    def publish(self, count: int = 200) -> None:
        for name in self.published:
            (made,) = self._db.execute(
                "select tide.outbox_publish_many(%s, array_fill('{\"a\": 1}'::jsonb, array[%s]))", [name, count]
            ).fetchone()
            self.published[name] += made

    def delivered(self, name: str) -> list[int]:
        path = self._folder / name
        whole, _, _ = path.read_text().rpartition("\n") if path.exists() else ("", "", "")
        return [int(json.loads(line)["id"].removeprefix(f"{name}:")) for line in whole.splitlines()]

    def wait_delivered(self, what: str) -> None:
        """Everything published so far has come, for the first time in the order of publishing."""

        def all_there() -> bool:
            return all(set(ids) <= set(self.delivered(name)) for name, ids in self.published.items())

        wait_until(all_there, 120, what)
        for name, ids in self.published.items():
            assert list(dict.fromkeys(self.delivered(name))) == ids

    def close(self) -> None:
        self._db.close()


@pytest.fixture
def pods(database, redis_server, tmp_path):
    with pods_in(tmp_path, database.fleet_url(), redis_server.url) as running:
        yield running


@pytest.fixture
def load(database, tmp_path):
    made = Load(database, tmp_path)
    yield made
    made.close()


def with_processes(helm: Helm, processes: int) -> list[Object]:
    return helm.rendered(minimal(workers__groups__forward={"processes": processes}))


def test_a_scheduler_that_is_killed_under_load_is_replaced_by_its_replica(helm: Helm, pods: Pods, load: Load) -> None:
    objects = with_processes(helm, 1)
    workers = pods.start(objects, FORWARD)
    first = pods.start(objects, SCHEDULER).wait_ready()
    pods.start(objects, SCHEDULER).wait_ready()
    workers.wait_ready()
    load.publish()
    load.wait_delivered("both schedulers see to it that all is delivered")
    load.publish()
    first.kill()
    load.publish()
    load.wait_delivered("the other one has taken over")


def test_a_larger_group_of_workers_takes_over_under_load(helm: Helm, pods: Pods, load: Load) -> None:
    one, four = with_processes(helm, 1), with_processes(helm, 4)
    pods.start(one, SCHEDULER)
    small = pods.start(one, FORWARD).wait_ready()
    load.publish(2000)
    large = pods.start(four, FORWARD).wait_ready()
    load.publish(2000)
    assert small.stop() == 0
    load.publish(2000)
    load.wait_delivered("the larger group delivers the rest")
    assert large.is_ready()
