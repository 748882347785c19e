"""Random queries over the tables of `tables.py`: joins of every kind, subqueries everywhere, groups, windows."""

import random
import re
from dataclasses import dataclass

COLUMNS = {
    "people": {"id": "int", "team": "int", "city": "text", "score": "int"},
    "sales": {"id": "int", "team": "int", "amount": "numeric", "person_id": "int", "note": "text"},
    "visits": {"team": "int", "pages": "int"},
    "readings": {"id": "int", "day": "int", "value": "int"},
    "tags": {"person_id": "int", "tag": "text", "weight": "int"},
    "prices": {"item": "text", "price": "free"},
}
VALUES = {
    "int": ["0", "1", "2", "3", "5"],
    "text": ["'Bern'", "'Oslo'", "'x'"],
    "numeric": ["2", "7.00"],
    "free": ["1.5", "2"],
}
Columns = list[tuple[str, str]]
"""Expressions and their types."""


@dataclass
class Queries:
    """A generator of queries. Not all are valid: PostgreSQL refuses the others."""

    random: random.Random
    number: int = 0

    def query(self) -> str:
        kind = self.random.random()
        if kind < 0.12:
            return self._set_operation(self.random.choice([["int", "int"], ["int"], ["text", "int"]]), [], 2)
        query = self.random.choice([self._rows, self._rows, self._groups, self._groups, self._distinct, self._window])(
            [], 2
        )
        return self._limited(query) if kind < 0.24 else query

    def _limited(self, query: str) -> str:
        """Rows that tie are equal."""
        name, order = self._name(), ", ".join(f"{place + 1} desc" for place in range(_width(query)))
        number = self.random.choice([1, 3, 5])
        if self.random.random() < 0.4:
            return f"select * from ({query}) {name} order by 1 desc fetch first {number} rows with ties"
        return f"select * from ({query}) {name} order by {order} limit {number}"

    def _name(self) -> str:
        self.number += 1
        return f"t{self.number}"

    def _rows(self, outer: Columns, depth: int) -> str:
        body, columns = self._from(outer, depth)
        shown = self._some(columns, 4)
        values = [expression for expression, _ in shown]
        if self.random.random() < 0.25:
            values.append(self._value(columns, depth))
        return f"select {self._named(values)} {body}"

    def _set_operation(self, kinds: list[str], outer: Columns, depth: int) -> str:
        """Of two queries, of which one may be a set operation itself."""
        one, other = self._of_kinds(kinds, outer, depth), self._of_kinds(kinds, outer, depth)
        if self.random.random() < 0.2:
            other = f"({self._set_operation(kinds, outer, depth - 1)})" if depth else other
        elif self.random.random() < 0.15:
            one = f"({self._set_operation(kinds, outer, depth - 1)})" if depth else one
        every = self.random.choice(["", " all"])
        return f"{one} {self.random.choice(['union', 'except', 'intersect'])}{every} {other}"

    def _of_kinds(self, kinds: list[str], outer: Columns, depth: int) -> str:
        """A query with columns of these kinds, c0, c1 .."""
        body, columns = self._from(outer, depth)
        found = [[each for each, kind in columns if kind == wanted] for wanted in kinds]
        values = [self.random.choice(each or VALUES[kind]) for each, kind in zip(found, kinds, strict=True)]
        if self.random.random() < 0.15:
            values[-1] = "max(" + values[-1] + ")"
            more = f" group by {', '.join(values[:-1])}" if values[:-1] else ""
            return f"select {self._named(values)} {body}{more}"
        return f"select {self.random.choice(['', '', '', 'distinct '])}{self._named(values)} {body}"

    def _distinct(self, outer: Columns, depth: int) -> str:
        body, columns = self._from(outer, depth)
        shown = [expression for expression, _ in self._some(columns, 3)]
        if self.random.random() < 0.5:
            return f"select distinct {self._named(shown)} {body}"
        every = [expression for expression, _ in columns]
        return f"select distinct on ({shown[0]}) {self._named(every)} {body} order by {', '.join([shown[0], *every])}"

    def _window(self, outer: Columns, depth: int) -> str:
        body, columns = self._from(outer, depth)
        shown = [expression for expression, _ in self._some(columns, 4)]
        over = f"partition by {self.random.choice(shown)} order by {', '.join(expression for expression, _ in columns)}"
        call = self.random.choice(["row_number()", "rank()", f"count({shown[0]})", f"max({shown[-1]})"])
        return f"select {self._named([*shown, f'{call} over ({over})'])} {body}"

    def _groups(self, outer: Columns, depth: int) -> str:
        body, columns = self._from(outer, depth)
        keys = [expression for expression, _ in self._some(columns, 2)]
        if self.random.random() < 0.15:
            keys = []
        elif depth and self.random.random() < 0.15:
            keys[-1] = self._found(columns, depth)
        calls = [self._aggregate(columns) for _ in range(self.random.randrange(1, 4))]
        shown = [key for key in keys if self.random.random() < 0.9] + calls
        group = f" group by {', '.join(keys)}" if keys else ""
        having = (
            f" having {self.random.choice(['count(*) > 1', f'{calls[0]} is not null'])}"
            if self.random.random() < 0.2
            else ""
        )
        return f"select {self._named(shown)} {body}{group}{having}"

    def _aggregate(self, columns: Columns) -> str:
        expression, kind = self.random.choice(columns)
        calls = ["count(*)", f"count({expression})", f"max({expression})"]
        if kind != "text":
            calls += [
                f"sum({expression})",
                f"avg({expression})",
                f"sum({expression} + 1)",
                f"coalesce(sum({expression}), 0)",
            ]
        call = self.random.choice(
            [
                *calls,
                *calls,
                f"count(distinct {expression})",
                f"string_agg({expression}::text, ',' order by {expression}::text)",
            ]
        )
        if self.random.random() < 0.2 and "coalesce" not in call:
            call += f" filter (where {self._comparison(columns)})"
        return call

    def _from(self, outer: Columns, depth: int) -> tuple[str, Columns]:
        """FROM and WHERE, and the columns to choose from."""
        first, columns = self._item(depth)
        text = f"from {first}"
        for _ in range(self.random.choice([0, 0, 1, 1, 2])):
            item, more = self._item(depth)
            kind = self.random.choice(["join", "join", "left join", "left join", "right join", "full join"])
            name = self._shared(columns, more)
            if kind == "full join" and name and self.random.random() < 0.3:
                text += f" {kind} {item} using ({name})"
                columns = [*columns, *more, (name, "int")]
                continue
            conditions = [self._equality(columns, more)]
            if self.random.random() < 0.3:
                conditions.append(self._comparison(columns + more))
            text += f" {kind} {item} on {' and '.join(conditions)}"
            columns = columns + more
        if depth and self.random.random() < 0.08:
            item, more = self._lateral(columns, depth)
            text += item
            columns = columns + more
        conditions = [self._equality(columns, outer)] if outer and self.random.random() < 0.85 else []
        while self.random.random() < 0.45:
            conditions.append(self._condition(columns, outer, depth))
        return text + (f" where {' and '.join(conditions)}" if conditions else ""), columns

    def _lateral(self, columns: Columns, depth: int) -> tuple[str, Columns]:
        """A subquery that refers to what stands before it."""
        name, kind = self._name(), self.random.random()
        body, inner = self._from(columns, depth - 1)
        shown = self._some(inner, 2)
        names = [(f"{name}.c{place}", kind) for place, (_, kind) in enumerate(shown)]
        query = f"select {self._named([expression for expression, _ in shown])} {body}"
        if kind < 0.3:
            call = self.random.choice(["count", "max", "min"])
            query, names = f"select {call}({shown[0][0]}) as c0 {body}", [(f"{name}.c0", "int")]
            names = names if call == "count" else [(f"{name}.c0", shown[0][1])]
        elif kind < 0.5:
            query = f"{query} order by {', '.join(expression for expression, _ in inner)} limit 1"
        elif kind < 0.6:
            query, names = self._set_operation(["int"], columns, depth - 1), [(f"{name}.c0", "int")]
        if self.random.random() < 0.5:
            return f" cross join lateral ({query}) {name}", names
        on = self.random.choice(["true", self._comparison(columns + names)])
        return f" left join lateral ({query}) {name} on {on}", names

    def _shared(self, one: Columns, other: Columns) -> str | None:
        """A name that one column of each has, both numbers."""
        names = [[each.split(".")[-1] for each, kind in columns if kind == "int"] for columns in (one, other)]
        return next((name for name in names[0] if names[0].count(name) == 1 and names[1].count(name) == 1), None)

    def _item(self, depth: int) -> tuple[str, Columns]:
        name = self._name()
        if depth and self.random.random() < 0.06:
            kinds = self.random.choice([["int"], ["text"], ["int", "numeric"], ["int", "text"], ["free"]])
            names = [(f"{name}.c{place}", kind) for place, kind in enumerate(kinds)]
            return f"({self._set_operation(kinds, [], depth - 1)}) {name}", names
        if depth == 0 or self.random.random() < 0.75:
            table = self.random.choice([*COLUMNS, "people", "people", "sales", "sales"])
            return f"{table} {name}", [(f"{name}.{column}", kind) for column, kind in COLUMNS[table].items()]
        body, columns = self._from([], depth - 1)
        shown = self._some(columns, 3)
        names = [(f"{name}.c{place}", kind) for place, (_, kind) in enumerate(shown)]
        expressions = [expression for expression, _ in shown]
        kind = self.random.random()
        if kind < 0.4:
            text = f"select {self._named(expressions)} {body}"
        elif kind < 0.45:
            text = self._limited(f"select {self._named(expressions)} {body}")
        elif kind < 0.6:
            text = f"select distinct {self._named(expressions)} {body}"
        else:
            calls = ["count(*)", f"max({self.random.choice(columns)[0]})"]
            keys = expressions[: self.random.randrange(1, len(expressions) + 1)]
            names = [*names[: len(keys)], (f"{name}.c{len(keys)}", "int")]
            text = f"select {self._named([*keys, calls[0]])} {body} group by {', '.join(keys)}"
        return f"({text}) {name}", names

    def _condition(self, columns: Columns, outer: Columns, depth: int) -> str:
        kinds = [lambda: self._comparison(columns), lambda: self._equality(columns, columns + outer)]
        if depth:
            kinds.append(lambda: self._with_all(columns, depth))
            kinds += [lambda: self._exists(columns + outer, depth), lambda: self._in(columns, depth)]
            kinds.append(lambda: f"({self._exists(columns, depth)} or {self._comparison(columns)})")
        return self.random.choice(kinds)()

    def _exists(self, columns: Columns, depth: int) -> str:
        if self.random.random() < 0.1:
            query = self._set_operation(["int"], columns, depth - 1)
            return f"{self.random.choice(['', 'not '])}exists ({query})"
        body, _ = self._from(columns, depth - 1)
        return f"{self.random.choice(['', 'not '])}exists (select 1 {body})"

    def _in(self, columns: Columns, depth: int) -> str:
        expression, kind = self.random.choice(columns)
        if self.random.random() < 0.15:
            query = self._set_operation([kind], [], depth - 1)
            return f"{expression} {self.random.choice(['in', 'in', 'not in'])} ({query})"
        body, inner = self._from(columns if self.random.random() < 0.2 else [], depth - 1)
        of_kind = [each for each, other in inner if other == kind] or [inner[0][0]]
        value = self.random.choice(of_kind)
        more = self.random.choice(["", "", f" group by {value}", f" order by {value} limit 2"])
        return f"{expression} {self.random.choice(['in', 'in', 'not in'])} (select {value} {body}{more})"

    def _with_all(self, columns: Columns, depth: int) -> str:
        """A comparison with one value of all rows of something else."""
        expression, kind = self.random.choice(columns)
        body, inner = self._from([], depth - 1)
        value = self.random.choice([each for each, other in inner if other == kind] or ["1"])
        cast = "::text" if kind == "text" else ""
        call = self.random.choice(["max", "min", "count", *(["avg"] if kind != "text" else [])])
        return f"{expression}{cast} >= (select {call}({value}){cast} {body})"

    def _value(self, columns: Columns, depth: int) -> str:
        expression, kind = self.random.choice(columns)
        if depth and self.random.random() < 0.5:
            return self._found(columns, depth)
        return f"{expression}::text" if kind == "text" or self.random.random() < 0.5 else f"{expression} + 1"

    def _found(self, columns: Columns, depth: int) -> str:
        """One value of the rows of something else that belong to a row."""
        body, inner = self._from(columns, depth - 1)
        return f"(select {self.random.choice(['max', 'count', 'min'])}({self.random.choice(inner)[0]}) {body})"

    def _comparison(self, columns: Columns) -> str:
        expression, kind = self.random.choice(columns)
        if self.random.random() < 0.2:
            return f"{expression} is {self.random.choice(['', 'not '])}null"
        return f"{expression} {self.random.choice(['>', '<', '=', '<>'])} {self.random.choice(VALUES[kind])}"

    def _equality(self, one: Columns, other: Columns) -> str:
        """Between columns of one kind, if there are any."""
        pairs = [(first, second) for first, kind in one for second, also in other if kind == also and first != second]
        if not pairs:
            return "true"
        first, second = self.random.choice(pairs)
        return f"{first} = {second}"

    def _some(self, columns: Columns, most: int) -> Columns:
        return self.random.sample(columns, self.random.randrange(1, min(most, len(columns)) + 1))

    def _named(self, expressions: list[str]) -> str:
        return ", ".join(f"{expression} as c{place}" for place, expression in enumerate(expressions))


def _width(query: str) -> int:
    """How many columns the outermost SELECT shows: they are named c0, c1 .. before its FROM."""
    depth, width = 0, 0
    for word in re.findall(r"[()]|\bas c\d+|\bfrom\b", query):
        depth += {"(": 1, ")": -1}.get(word, 0)
        if depth == 0 and word == "from":
            break
        width += depth == 0 and word.startswith("as")
    return width
