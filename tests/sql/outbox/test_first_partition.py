"""A new outbox has one partition for its ids. Everyone who asks agrees on when it needs the next."""

import pytest

from tests.sql.outbox.test_partitions import SIZE, extend, rows, wanting
from tests.sql.support import publish, publish_many, run

pytestmark = pytest.mark.each_postgres


def wanting_one_by_one(connection):
    """What everyone else asks, for one outbox and for some of them by name."""
    named = [row[0] for row in run(connection, "outboxes_needing", names=["orders", "none"])]
    checked = [row[0] for row in run(connection, "doctor_partitions", outbox_ids=[1, 2])]
    asked = connection.execute("select name from tide.outbox where tide.outbox_needs_partition(outbox_id)").fetchall()
    assert named == checked == [name for (name,) in asked]
    return named


def test_a_new_outbox_has_a_partition_and_the_default_and_wants_no_more_until_a_quarter_is_used(database):
    with database.connect() as new:
        new.execute("select tide.outbox_create('orders', partition_size => %s)", [SIZE])
        parts = new.execute("select relid::text from pg_partition_tree('tide.message') where isleaf order by 1")
        assert parts.fetchall() == [("tide.message_1_0",), ("tide.message_1_rest",)]
        publish_many(new, SIZE // 4 - 1)
        assert wanting(new) == []
        assert wanting_one_by_one(new) == []
        assert extend(new) == 0
        publish(new)
        assert wanting(new) == ["orders"]
        assert wanting_one_by_one(new) == ["orders"]
        assert extend(new) == 1
        assert wanting(new) == []
        publish_many(new, SIZE)
        assert rows(new) == {"0": 999, "1000": 251}
