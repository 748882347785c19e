"""Single drains in the test's own process: the resources of one worker, and a database with what its drains need."""

import threading
from contextlib import contextmanager

from psycopg.types.json import Jsonb

from relay.backends.memory.source import log
from relay.models import Drain
from relay.settings import Settings
from workers.drain import run
from workers.resources import Resources

# One drain is to do all there is, however slow the machine.
SLICE = {"slice_ms": 15_000}


class Bench:
    """Resources of one worker, and a database with what drains need."""

    def __init__(self, database, threads=4, others_wait=lambda: False):
        self.database = database
        self.resources = Resources(Settings(postgres_url=database.url), threads, others_wait)
        self.db = database.connect()
        self.numbers = {}

    def close(self):
        self.resources.stop.set()
        self.resources.close()
        self.db.close()

    def query(self, statement, *parameters):
        cursor = self.db.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []

    def receive_into(self, inbox, pipeline="p", **config):
        self.query(
            "select tide.inbox_create(%s) where not exists (select from tide.inbox where name = %s)", inbox, inbox
        )
        config = {"source_type": "memory", "name": inbox, "batch_size": 10} | SLICE | config
        self.query("select tide.relay_set_inbox(%s, %s, %s)", pipeline, inbox, Jsonb(config))
        return log(config["name"])

    def publish_to(self, pipeline="p", **config):
        self.query("select tide.outbox_create_if_not_exists('orders')")
        self.query("select tide.relay_set_outbox(%s, 'orders', %s)", pipeline, Jsonb(SLICE | config))

    def publish(self, count=1, payload=None):
        payloads = [Jsonb({"n": n} if payload is None else payload) for n in range(count)]
        return self.query("select tide.outbox_publish_many('orders', %s)", payloads)[0][0]

    def drain(self, pipeline="p", lease_ms=30_000):
        """One drain; how it ended."""
        number = self.numbers[pipeline] = self.numbers.get(pipeline, 0) + 1
        run(self.resources, Drain(pipeline, 0, number, lease_ms))
        return self.query("select outcome from tide.drain where pipeline = %s", pipeline)[0][0]

    @contextmanager
    def draining(self, pipeline="p", **options):
        thread = threading.Thread(target=self.drain, args=[pipeline], kwargs=options, daemon=True)
        thread.start()
        yield thread
        thread.join(20)
        assert not thread.is_alive(), "the drain did not end"

    def event_ids(self, inbox="commands"):
        return [row[0] for row in self.query(f"select event_id from tide.{inbox} order by inbox_seq")]

    def last(self, column, pipeline="p"):
        return self.query(f"select {column} from tide.drain where pipeline = %s", pipeline)[0][0]
