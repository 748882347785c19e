"""The floors: the least that a loop without any of our code does, in one process and one thread."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]

READ = "select id, payload::text from tide.message where outbox_id = {} and id > %s order by id limit {}"


def prepare(session: Connection) -> None:
    """The table that the floors keep their offset in."""
    session.execute("create schema bench")
    session.execute("create table bench.progress (offset_id bigint not null) with (fillfactor = 20)")
    session.execute("insert into bench.progress values (0)")


def to_file(url: str, outbox_id: int, batch: int, path: Path) -> int:
    """Select, write and fsync, update the offset, commit; until nothing is left. Returns the number of messages."""
    done = 0
    with path.open("ab", buffering=0) as file:
        for rows in _batches(url, outbox_id, batch):
            file.write(("\n".join([payload for _, payload in rows]) + "\n").encode())
            os.fsync(file.fileno())
            done += len(rows)
    return done


def to_nats(url: str, outbox_id: int, batch: int, nats_url: str, stream: str, subject: str) -> int:
    """Select, publish all with their deduplication ids, await every acknowledgement, update the offset, commit."""

    async def loop() -> int:
        client = await nats.connect(nats_url)
        jetstream = client.jetstream(publish_async_max_pending=batch)
        await jetstream.add_stream(name=stream, subjects=[subject])
        done = 0
        for rows in _batches(url, outbox_id, batch):
            acknowledgements = [
                await jetstream.publish_async(subject, payload.encode(), headers={"Nats-Msg-Id": f"o:{number}"})
                for number, payload in rows
            ]
            await asyncio.gather(*acknowledgements)
            done += len(rows)
        await client.close()
        return done

    return asyncio.run(loop())


def _batches(url: str, outbox_id: int, batch: int) -> Iterator[list[tuple[int, str]]]:
    """Each is settled when the next one is asked for."""
    select = sql.SQL(READ).format(sql.Literal(outbox_id), sql.Literal(batch))
    with psycopg.connect(url) as session:
        session.execute("set enable_seqscan = off")
        session.execute("update bench.progress set offset_id = 0")
        session.commit()
        offset_id = 0
        while True:
            rows = session.execute(select, (offset_id,), prepare=True).fetchall()
            if not rows:
                return
            yield rows
            offset_id = rows[-1][0]
            session.execute("update bench.progress set offset_id = %s", (offset_id,))
            session.commit()
