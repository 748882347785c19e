"""Every committed message is read exactly once and in order, whatever publishers do, and no one waits for strangers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from tests.sql.outbox.writers import Writers
from tests.sql.support import (
    Follower,
    horizon,
    make_outbox,
    make_pipeline,
    publish,
    reader_of,
)
from tests.waiting import wait_until

ENOUGH = 3000


class NaiveReader:
    """The classic bug: remembers the last id that it saw."""

    def __init__(self, connection):
        self._connection = connection
        self.ids = []

    def read(self):
        last = self.ids[-1] if self.ids else 0
        rows = self._connection.execute("select id from tide.message where id > %s order by id", [last])
        self.ids += [id_ for (id_,) in rows]
        return self.ids


@contextmanager
def unrelated_transaction(database):
    """One that has written, and never touches an outbox."""
    with database.connect(autocommit=False) as connection:
        connection.execute("create table unrelated as select 1 as number")
        assert connection.execute("select pg_current_xact_id_if_assigned() is not null").fetchone()[0]
        yield
        connection.rollback()


def following(reader, stop):
    """Reads in small batches until told to stop, and then to the end."""
    follower = Follower(reader)
    while not stop.is_set():
        follower.step()
    follower.to_end()
    return follower.ids


def test_under_every_kind_of_load_each_committed_message_is_read_once_in_order(database):
    outboxes = ("orders", "events")
    for outbox in outboxes:
        make_pipeline(database, outbox, outbox)
    writers, stop = Writers(database, outboxes), threading.Event()
    with ExitStack() as stack:
        stack.enter_context(unrelated_transaction(database))
        readers = [stack.enter_context(reader_of(database, outbox, batch_size=7)) for outbox in outboxes]
        pool = stack.enter_context(ThreadPoolExecutor(2))
        read = [pool.submit(following, reader, stop) for reader in readers]
        try:
            with writers.running(writers=14):
                wait_until(lambda: writers.count() > ENOUGH, 60)
        finally:
            stop.set()
        for outbox, future in zip(outboxes, read, strict=True):
            ids = future.result()
            assert ids == sorted(set(ids))
            assert set(ids) == writers.committed[outbox]
            assert not set(ids) & writers.rolled_back[outbox]
            assert len(ids) > 200
            assert len(writers.rolled_back[outbox]) > 50
    ways = {"committed", "rolled back", "committed: prepared", "rolled back: prepared"}
    assert ways <= writers.done.keys(), writers.done


def test_the_same_load_makes_a_reader_lose_messages_that_only_remembers_the_last_id(database):
    make_pipeline(database)
    writers = Writers(database)
    with reader_of(database) as reader, database.connect() as watching, database.connect(autocommit=False) as slow:
        naive, follower = NaiveReader(watching), Follower(reader)
        slow_id = publish(slow)
        with writers.running(writers=8):
            wait_until(lambda: len(naive.read()) > 50 and follower.step() is not None)
            slow.commit()
            wait_until(lambda: len(naive.read()) > 300 and follower.step() is not None)
        naive.read()
        follower.to_end()
    committed = writers.committed["orders"] | {slow_id}
    assert slow_id not in naive.ids
    assert set(naive.ids) < committed
    assert follower.ids == sorted(committed)


def test_the_same_load_makes_the_relay_lose_messages_if_no_mark_counts(database):
    """The control of the first test: it is the marks of calls and of views that keep it whole."""
    make_pipeline(database)
    writers = Writers(database)
    with reader_of(database) as reader, database.connect() as owner, database.connect(autocommit=False) as slow:
        owner.execute("""create or replace view tide.mark as
                         select 0 as class, 0::bigint as key, null::int as pid, ''::text as virtualtransaction,
                                false as publishes""")
        follower = Follower(reader)
        slow_id = publish(slow)
        slow_ids = {
            slow_id,
            slow.execute("insert into tide_outbox.orders (payload) values ('1') returning id").fetchone()[0],
        }
        with writers.running(writers=8):
            wait_until(lambda: follower.step() is not None and len(follower.ids) > 300)
            slow.commit()
        follower.to_end()
    committed = writers.committed["orders"] | slow_ids
    assert not slow_ids & set(follower.ids)
    assert set(follower.ids) < committed


def test_a_slow_transaction_holds_back_the_faster_ones_above_it_and_nothing_below(database):
    make_pipeline(database)
    with reader_of(database) as reader, database.connect() as fast, database.connect(autocommit=False) as slow:
        follower = Follower(reader)
        first = publish(fast)
        second = publish(slow)
        third = publish(fast)
        batch = follower.step()
        assert [message.id for message in batch.messages] == [first]
        assert (batch.horizon, batch.open_publishers) == (first, 1)
        slow.commit()
        assert follower.to_end() == [first, second, third]


def test_nobody_waits_for_a_transaction_that_publishes_elsewhere(database):
    make_pipeline(database)
    with database.connect() as connection:
        make_outbox(connection, "other")
    with (
        reader_of(database) as reader,
        database.connect() as fast,
        database.connect(autocommit=False) as slow,
        unrelated_transaction(database),
    ):
        publish(slow, "other")
        assert Follower(reader).to_end() == []
        published = publish(fast)
        assert Follower(reader).to_end() == [published]
        assert horizon(fast) == (published, 0)


def test_a_publisher_that_takes_its_mark_between_the_two_reads_of_the_horizon_holds_nothing_back(database):
    """Reading top and reading the marks are two moments: a mark may be above top by then."""
    make_pipeline(database)
    with database.connect() as fast, database.connect(autocommit=False) as later:
        published = publish(fast)
        outbox_id = make_outbox(fast)
        class_ = fast.execute("select tide.lock_class(%s)", [outbox_id]).fetchone()[0]
        later.execute("select from tide.outbox")  # as a publisher does: without it the lock is no mark
        later.execute("select pg_advisory_xact_lock_shared(%s, %s)", [class_, published + 5])
        assert horizon(fast) == (published, 1)


def test_messages_are_read_with_a_later_snapshot_than_the_horizon_whatever_the_default_isolation(database):
    """One snapshot for both would be older than the marks: what was committed in between would be lost."""
    make_pipeline(database)
    with database.connect() as owner:
        owner.execute(f"alter database {database.name} set default_transaction_isolation = 'repeatable read'")
    with reader_of(database) as reader:
        assert reader._connection.execute("show transaction_isolation").fetchone()[0] == "read committed"


def test_rolled_back_ids_are_passed_over(database):
    make_pipeline(database)
    with reader_of(database) as reader, database.connect(autocommit=False) as connection:
        follower = Follower(reader)
        gone = publish(connection)
        connection.rollback()
        assert follower.step().messages == []
        assert follower.offset == gone
        kept = publish(connection)
        connection.commit()
        assert follower.to_end() == [kept]
