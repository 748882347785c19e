"""Names are data: whatever PostgreSQL takes as a name works, or is refused clearly."""

import pytest

from tests.sql.table_outboxes import enable, payloads, published


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


@pytest.mark.parametrize("mode", ["statement", "row"])
def test_columns_of_an_outbox_table_may_be_named_as_anything_inside(db, mode):
    """Also as what the functions call rows, transition tables and their own variables."""
    columns = ["i", "d", "s", "j", "inserted", "deleted", "new_row", "old_row", "news", "columns", "headers", "n", "o"]
    listed = ", ".join(f'"{name}" int' for name in columns)
    db.execute(f"create table t (id int primary key, {listed})")
    enable(db, "t", mode=mode)
    row = {"id": 1} | {name: number for number, name in enumerate(columns)}
    db.execute(f"insert into t values ({', '.join(str(value) for value in row.values())})")
    db.execute("update t set i = 100")
    db.execute("delete from t")
    if mode == "row":
        found = [(p["op"], p["new"], p["old"]) for p in payloads(db, "public.t")]
        one = lambda row: row  # noqa: E731
    else:
        found = published(db, "public.t")
        one = lambda row: [row] if row else []  # noqa: E731
    later = row | {"i": 100}
    assert found == [
        ("insert", one(row), one(None)),
        ("update", one(later), one(row)),
        ("delete", one(None), one(later)),
    ]
