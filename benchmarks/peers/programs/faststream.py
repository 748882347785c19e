"""faststream-outbox: its relay to Kafka, the stacked decorators of its first page, with confluent-kafka as ours.

For throughput, as its page on performance says: `terminal_flush_batch_size`, and more workers. Thirty-two of them take
the least of the processor for a message here; one alone would keep the order, and takes a third more. A worker waits
for Kafka with each message, so the client does not linger.
"""

import asyncio

from faststream.confluent import KafkaBroker
from faststream_outbox import OutboxBroker, make_outbox_table
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.peers.programs.common import BROKERS, DATABASE_URL, PRODUCER, end_with_input, say

WORKERS = 32
BATCH = 1000
DELETED_AT_A_TIME = 100
TOPIC, QUEUE = "faststream", "bench"
LOOK_SECONDS = 0.01


class Settled:
    count = 0

    def __call__(self, event: str, tags: object) -> None:  # noqa: ARG002
        """`acked` says that the row is deleted."""
        self.count += event == "acked"


async def main() -> None:
    tables, settled = MetaData(), Settled()
    outbox = make_outbox_table(tables)
    engine = create_async_engine(DATABASE_URL.replace("postgresql://", "postgresql+asyncpg://"), pool_size=WORKERS + 2)
    broker = OutboxBroker(engine, outbox_table=outbox, metrics_recorder=settled, logger=None)
    kafka = KafkaBroker(BROKERS, config={**PRODUCER, "linger.ms": 0}, logger=None)

    @kafka.publisher(TOPIC)
    @broker.subscriber(
        QUEUE, max_workers=WORKERS, fetch_batch_size=BATCH, terminal_flush_batch_size=DELETED_AT_A_TIME,
        propagate_inbound_headers=True,
    )  # fmt: skip
    async def relay(body: dict) -> dict:  # type: ignore[type-arg]
        return body

    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
    await kafka.start()
    await broker.start()
    say("ready")
    said = 0
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if settled.count != said:
            said = settled.count
            say(said)


if __name__ == "__main__":
    end_with_input()
    asyncio.run(main())
