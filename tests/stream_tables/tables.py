"""Tables with what makes changes hard: null keys, duplicates, no key, partitions, numerics of any scale, floats, JSON.

And random changes of them: inserts, updates (of keys too), deletes, upserts, several rows at once.
"""

import random
from collections.abc import Callable
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

TABLES = """
    create table people (id int primary key, team int, city text, score int not null, joined timestamptz not null);
    create table sales (id int primary key, team int not null, amount numeric(10,2), person_id int, note varchar(20));
    create table visits (team int, pages int);
    create table readings (id int, day int, value int, primary key (id, day)) partition by range (day);
    create table readings_early partition of readings for values from (0) to (5);
    create table readings_late partition of readings for values from (5) to (100);
    create table prices (item text, price numeric, rate float8, spec jsonb);
    create table tags (person_id int not null, tag varchar(10) not null, weight bigint, unique (tag, person_id));
    create view team_sales as
        select p.city, s.amount, p.id from people p join sales s on p.team = s.team where s.amount > 1;
    create view big_sales as with big as (select * from sales where amount > 2) select id, team, amount from big;
"""


class Changes:
    """Random changes. The same seed makes the same changes."""

    def __init__(self, connection: Connection, seed: int) -> None:
        self._connection = connection
        self.random = random.Random(seed)
        self._kinds: list[list[Callable[[], None]]] = [
            [self._put_person, self._put_person, self._drop_person, self._move_people, self._renumber_person],
            [
                self._put_sale,
                self._put_sale,
                self._drop_sales,
                self._raise_sales,
                self._rename_notes,
                self._empty("sales"),
            ],
            [self._add_visits, self._drop_visit, self._empty("visits")],
            [self._put_reading, self._move_readings],
            [self._put_price, self._reform_price, self._drop_price],
            [self._put_tag, self._put_tag, self._drop_tags, self._empty("tags")],
        ]

    def make(self, number: int) -> None:
        """So many changes, of one table, of two, or of any."""
        tables = self.random.sample(self._kinds, self.random.choice([1, 1, 2, 2, len(self._kinds)]))
        for _ in range(number):
            self.random.choice(self.random.choice(tables))()

    def fill(self) -> None:
        """Rows in every table."""
        for _ in range(15):
            for kinds in self._kinds:
                kinds[0]()

    def _empty(self, table: str) -> Callable[[], None]:
        """Rarely, a TRUNCATE: no row tells what went."""

        def empty() -> None:
            if self.random.random() < 0.2:
                self._run(f"truncate {table}")

        return empty

    def _run(self, statement: str, *values: object) -> None:
        self._connection.execute(statement, values)  # type: ignore[arg-type]

    def _person(self) -> int:
        return self.random.randrange(12)

    def _team(self) -> int | None:
        return self.random.choice([None, None, 0, 1, 2, 3, 4])

    def _put_person(self) -> None:
        score = self.random.randrange(10)
        self._run(
            "insert into people values (%s, %s, %s, %s, '2026-01-01 00:00+00'::timestamptz + %s * interval '20 min')"
            " on conflict (id) do update set team = excluded.team, score = excluded.score",
            self._person(), self._team(), self.random.choice([None, "Bern", "Oslo", "Rome"]), score, score,
        )  # fmt: skip

    def _drop_person(self) -> None:
        self._run("delete from people where id = %s", self._person())

    def _move_people(self) -> None:
        city = self.random.choice([None, "Bern", "Oslo", "Rome"])
        self._run(
            "update people set score = %s, city = %s where team is not distinct from %s",
            self.random.randrange(10), city, self._team(),
        )  # fmt: skip

    def _renumber_person(self) -> None:
        one, other = self._person(), self._person()
        self._run(
            "update people set id = %s where id = %s and not exists (select from people where id = %s)", one, other, one
        )

    def _put_sale(self) -> None:
        self._run(
            "insert into sales values (%s, %s, %s, %s, %s)"
            " on conflict (id) do update set amount = excluded.amount, person_id = excluded.person_id",
            self.random.randrange(20), self.random.randrange(5), self.random.choice([None, 1.5, 2.25, 7, 9.99]),
            self.random.choice([None, *range(12)]), self.random.choice([None, "Bern", "Oslo", "x"]),
        )  # fmt: skip

    def _drop_sales(self) -> None:
        self._run(
            "delete from sales where team = %s and id %% 2 = %s", self.random.randrange(5), self.random.randrange(2)
        )

    def _raise_sales(self) -> None:
        self._run("update sales set amount = amount + 1, team = (team + 1) %% 5 where person_id = %s", self._person())

    def _rename_notes(self) -> None:
        self._run(
            "update sales set note = %s where person_id = %s", self.random.choice([None, "Rome", "x"]), self._person()
        )

    def _add_visits(self) -> None:
        pages, times = self.random.randrange(3), self.random.randrange(1, 4)
        self._run("insert into visits select %s, %s from generate_series(1, %s)", self._team(), pages, times)

    def _drop_visit(self) -> None:
        self._run(
            "delete from visits where ctid = (select ctid from visits where team is not distinct from %s limit 1)",
            self._team(),
        )

    def _put_reading(self) -> None:
        self._run(
            "insert into readings values (%s, %s, %s) on conflict (id, day) do update set value = excluded.value",
            self.random.randrange(5), self.random.randrange(12), self.random.choice([None, *range(10)]),
        )  # fmt: skip

    def _move_readings(self) -> None:
        self._run(
            "update readings set day = (day + 6) %% 12 where id = %s and not exists"
            " (select from readings r where r.id = readings.id and r.day = (readings.day + 6) %% 12)",
            self.random.randrange(5),
        )

    def _put_price(self) -> None:
        price = self.random.choice([None, "1.5", "1.50", "2", "2.000", "0.123456789012", "1000000000000.1", "NaN"])
        if price == "NaN" and self.random.random() < 0.8:
            price = "3.25"
        self._run(
            "insert into prices values (%s, %s, %s, %s)",
            self.random.choice([None, "pen", "cup", "hat"]), price, self.random.choice([None, 0.5, 2.25, 0.0, -0.0]),
            self.random.choice([None, '{"size": 1}', '{"size": 1.0}', '{"color": "red"}']),
        )  # fmt: skip

    def _reform_price(self) -> None:
        """Another form of an equal value."""
        self._run("update prices set price = price + 0.000, spec = %s where price < 2", '{"size": 1.00}')

    def _drop_price(self) -> None:
        self._run("delete from prices where ctid = (select ctid from prices order by ctid limit 1)")

    def _put_tag(self) -> None:
        self._run(
            "insert into tags values (%s, %s, %s) on conflict (tag, person_id) do update set weight = excluded.weight",
            self._person(), self.random.choice(["Bern", "Oslo", "vip"]), self.random.choice([None, 1, 5_000_000_000]),
        )  # fmt: skip

    def _drop_tags(self) -> None:
        self._run("delete from tags where person_id = %s", self._person())
