"""The entry point of `dramatiq relay.workers`, and the only importer of the package `workers`.

Reads the settings, makes the broker, and binds plain functions to queues. Dramatiq imports it once in each process.
"""

import gc
import multiprocessing
import threading
from contextlib import AbstractContextManager

from relay.errors import ConfigError
from relay.process.logs import cannot_start, configure_logging
from relay.process.multiprocess import prepare_multiprocess
from relay.process.worker_stop import WorkerStop

try:
    stop = WorkerStop()
    stop.hear()  # before anything that takes long, and before anything is in hand
    folder = prepare_multiprocess()  # before anything imports prometheus_client
except ConfigError as error:
    cannot_start("relay.workers", str(error))

import dramatiq
import structlog
from dramatiq.middleware import Middleware

from relay.broker import queues
from relay.broker.factory import make_broker, serve
from relay.broker.identity import Identity
from relay.database.connection import Connection
from relay.jobs.errors import HandlerError
from relay.jobs.registry import load
from relay.process.metrics.workers import worker_metrics
from relay.process.stop import wait_for_end_of_parent
from relay.process.worker_health import Heartbeat
from relay.process.worker_metrics import WorkerMetricsEndpoint
from relay.process.worker_presence import WorkerPresence
from relay.settings import Settings
from workers import maintenance
from workers.drain import WrongSchema, run
from workers.jobs.engine import Engine, longest_end_seconds
from workers.resources import Resources

try:
    settings = Settings.load()
except ConfigError as error:
    cannot_start("relay.workers", str(error))
configure_logging(settings)
stop.watch(longest_end_seconds(settings) if settings.runs_jobs else 0.0)
try:
    handlers = load(settings.job_modules)
except HandlerError as error:
    cannot_start("relay.workers", f"--jobs: {error}")

# A batch of 1,000 messages is some 4,000 tuples and dicts, in no cycle: with Python's default of 700,
# the collector searches them for cycles several times a batch, and with them all that a client library has loaded.
gc.set_threshold(20_000)

log = structlog.get_logger(__name__)


class Equip(Middleware):
    """Gives the drains of a process their resources; at a shutdown they settle the current batch and end."""

    resources: Resources

    def before_worker_boot(self, _broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        # Only here threads and queues are known: they are options of the dramatiq command.
        served = _served(worker)
        self.resources = Resources(
            settings,
            worker.worker_threads,
            lambda: not worker.work_queue.empty(),
            all_may_wait=queues.may_all_wait(served),
            jobs=Engine(settings, handlers) if queues.DRAIN_QUEUES["jobs"] in served else None,
        )

    def identity(self) -> str:
        """Of the database whose queues are served."""
        return self.resources.identity()

    def session(self, wait_seconds: float) -> AbstractContextManager[Connection]:
        """For a sign of life."""
        return self.resources.session(wait_seconds)

    def before_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        self.resources.stop.set()
        if self.resources.jobs:
            self.resources.jobs.stop()

    def after_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        if self.resources.jobs:
            self.resources.jobs.close()
        presence.leave()
        self.resources.close()

    def stuck(self) -> int:
        """Slots of jobs whose handlers do not end."""
        return self.resources.jobs.stuck if self.resources.jobs else 0

    def has_room(self, queue_name: str) -> bool:
        """Whether this process should be given work of that queue now."""
        jobs = self.resources.jobs
        return jobs is None or queue_name != queues.DRAIN_QUEUES["jobs"] or jobs.has_room


def _served(worker: dramatiq.Worker) -> set[str]:
    """The queues of this process: all, or those of the option --queues."""
    try:
        queues.check_queues(worker.consumer_whitelist or (), jobs=settings.runs_jobs)
    except ConfigError as error:
        cannot_start("relay.workers", f"--queues: {error}")
    return worker.consumer_whitelist or broker.get_declared_queues()


class EndWithMaster(Middleware):
    """Ends a process whose Dramatiq master was killed: nothing else would stop it, and its logs go nowhere any more."""

    def after_process_boot(self, _broker: dramatiq.Broker) -> None:
        if multiprocessing.parent_process():
            threading.Thread(target=self._watch, name="end-with-master", daemon=True).start()

    def _watch(self) -> None:
        wait_for_end_of_parent()
        stop.ask()


def drain(*arguments: object) -> None:
    """One drain message, as `relay.broker.queues` puts it on the queue and `relay.broker.received` has checked it."""
    with worker_metrics().drains_running.track_inprogress():
        try:
            run(equip.resources, queues.drain_from(arguments))
        except WrongSchema as error:
            # The drain is abandoned. The next is emitted when its lease has run out, for workers of the right version.
            log.critical("worker stops", reason=str(error))
            stop.ask()


def maintain() -> None:
    """One turn of maintenance of the database, if a scheduler asked for it."""
    maintenance.run(equip.resources)


equip = Equip()
presence = WorkerPresence(equip.session)
middleware = [stop, WorkerMetricsEndpoint(), Heartbeat(folder, equip.stuck), equip, presence, EndWithMaster()]
broker = make_broker(settings.broker_url, middleware=middleware)
# Read when the first queue is served, so that a process starts, and says why it waits, while PostgreSQL is down.
serve(broker, Identity(equip.identity), lambda code: worker_metrics().refused.labels(code).inc(), equip.has_room)
dramatiq.set_broker(broker)
dramatiq.actor(broker=broker, actor_name=queues.DRAIN_ACTOR, queue_name=queues.DRAIN_QUEUES["forward"])(drain)
broker.declare_queue(queues.DRAIN_QUEUES["reverse"])
broker.declare_queue(queues.DRAIN_QUEUES["stream"])
if settings.runs_jobs:
    broker.declare_queue(queues.DRAIN_QUEUES["jobs"])
dramatiq.actor(broker=broker, actor_name=queues.MAINTENANCE_ACTOR, queue_name=queues.MAINTENANCE_QUEUE)(maintain)
