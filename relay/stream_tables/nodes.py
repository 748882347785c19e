"""Hidden nodes: what a query is made of that is no plain join, each kept in a table of its own.

A subquery in FROM that groups, is distinct, limited or a set operation, an arm of UNION ALL that is no plain join, the
query before its LIMIT, and of INTERSECT and EXCEPT the rows of both sides. What reads a node then reads a table whose
changes are known; each is refreshed in the best way that its own query has.
"""

from dataclasses import replace
from itertools import count

from sqlglot import exp

from relay.stream_tables.apart import give_names, in_place_of, is_correlated, join_scalars, leaves, same_text, sorted_by
from relay.stream_tables.dialect import parse_table, write
from relay.stream_tables.forms import node_columns
from relay.stream_tables.joins import joins_of
from relay.stream_tables.keys import unique_key
from relay.stream_tables.plan import (
    MOST_NODES,
    Change,
    Described,
    Node,
    Plan,
    Read,
    Reader,
    Source,
    Unsupported,
)
from relay.stream_tables.planning import plan_of
from relay.stream_tables.query import arms, is_cut
from relay.stream_tables.regroup import regroup
from relay.stream_tables.rewrite import rewrite, same_sources
from relay.stream_tables.shape import Shape, is_plain
from relay.stream_tables.sides import SET_OPERATIONS, both_sides, counted, repeated
from relay.stream_tables.trees import (
    bare,
    column,
    distinct_on,
    groups,
    is_table,
    items,
    named,
    our_table,
    queries_in,
)  # fmt: skip

LIMITED = "it has LIMIT: its rows are chosen again from those of its node"


class Nodes:
    """The nodes of one query, in the order in which they are refreshed. `sources` says of which table each name is."""

    def __init__(self, described: Described, sources: dict[str, Source], read: Reader) -> None:
        self._described = described
        self._sources = dict(sources)
        self._read = read
        self._made: list[Node] = []
        self._bodies: dict[str, exp.Query] = {}
        self._kept: dict[str, Source] = {}
        self._names = (f"g{number}" for number in count(1))

    def plan(self, query: exp.Query) -> Plan:
        """The plan of a query over its nodes. Raises Unsupported if there are none, or one has no plan."""
        query = query.copy()
        rewritten = rewrite(query, self._sources, self._described, self._names)
        over = self._over(query, [each.name for each in self._described.columns])
        if not self._made and not rewritten:
            raise Unsupported("it has no part that could be kept by itself")
        plan = self._plan_of(over, self._described)
        if not self._made:
            return plan
        exact: dict[int, set[str]] = {}
        for each in [plan, *(node.plan for node in self._made)]:
            for oid, columns in each.exact.items():
                exact.setdefault(oid, set()).update(columns)
        # A net change is computed once for all nodes: finer than one of them needs is right for it too.
        forms = {oid: tuple(sorted(columns)) for oid, columns in sorted(exact.items())}
        return replace(plan, exact=forms, nodes=tuple(self._made), query=write(over))

    def _plan_of(self, query: exp.Query, described: Described) -> Plan:
        """Of a query that reads nodes and tables, but has no part that should be a node."""
        described = replace(described, sources=tuple(self._read_by(query)))
        if isinstance(query, exp.Select) and is_cut(query):
            plan = self._limited(query, described)
        else:
            plan = plan_of(query, described, self._sources, self._probe)
        self._index(query)
        return plan

    def _read_by(self, query: exp.Query) -> list[Source]:
        found = {table.alias: self._sources[table.alias] for table in query.find_all(exp.Table) if is_table(table)}
        return sorted(dict.fromkeys(found.values()), key=lambda source: source.oid)

    def _probe(self, query: exp.Query) -> Read:
        """How PostgreSQL reads it: nodes are what they hold, for they do not exist yet."""
        tree = query.copy()
        nodes = [table for table in tree.find_all(exp.Table) if is_table(table) and table.name in self._bodies]
        for table in nodes:
            table.replace(in_place_of(table, self._bodies[table.name].copy()))
        return self._probe(tree) if nodes else self._read(write(tree))

    # The query over nodes.

    def _over(self, query: exp.Query, names: list[str]) -> exp.Query:
        """The query with its parts as nodes. `names` are those of its columns."""
        if is_cut(query):
            return self._over_limit(query, names)
        if isinstance(query, exp.Union) and query.args.get("distinct"):
            return self._over_union(query, names)
        if isinstance(query, SET_OPERATIONS):
            return self._over_sides(query, names)
        if isinstance(query, exp.Select):
            same_sources(self._sources, regroup(query, self._shape, self._names))
            self._pull_out(query)
            return query
        for leaf in leaves(query):
            if isinstance(leaf, exp.Select) and is_plain(leaf, self._shape(leaf)):
                self._pull_out(leaf)
            else:
                leaf.replace(self._select_all(self._make(leaf.copy()), names))
        return query

    def _shape(self, select: exp.Select) -> Shape:
        return Shape(select, self._sources, self._described)

    def _over_union(self, query: exp.Union, names: list[str]) -> exp.Select:
        """UNION: the distinct rows of UNION ALL."""
        if query.args.get("order"):
            query.set("order", None)
        query.set("distinct", False)
        over = self._select_all(self._make(query), names)
        over.set("distinct", exp.Distinct())
        return over

    def _over_sides(self, query: exp.SetOperation, names: list[str]) -> exp.Select:
        """EXCEPT and INTERSECT: what the rows of both sides come to."""
        over = counted(query, self._select_all(self._make(both_sides(query, self._names)), [*names, "n"]))
        if query.args.get("distinct"):
            return over
        return repeated(self._select_all(self._make(over), [*names, "n"]), next(self._names))

    def _pull_out(self, select: exp.Select, *, inside: bool = False) -> None:
        """Makes nodes of the subqueries in FROM, wherever in the SELECT it is. `inside`: it is one in an expression."""
        shape = self._shape(select)
        if not inside:
            join_scalars(select, shape, self._names)
        nullable = joins_of(select).nullable
        for item in list(items(select)):
            if not isinstance(item, exp.Subquery):
                continue
            if is_plain(item.this, shape) and item.alias not in nullable:
                self._pull_out(item.this, inside=inside)
            elif not is_correlated(item.this):
                self._replace(select, item)
        for query in queries_in(select):
            if not isinstance(query.parent, exp.Subquery) or not query.parent.alias:
                self._pull_out_of(query)

    def _pull_out_of(self, query: exp.Query) -> None:
        """The same of a query in an expression. A set operation is a node itself."""
        if isinstance(query, exp.SetOperation) and not is_correlated(query):
            source = self._made_of(query)
            if source:
                query.replace(self._select_all(source, [each.name for each in source.columns]))
                return
        for each in [query] if isinstance(query, exp.Select) else query.find_all(exp.Select):
            self._pull_out(each, inside=True)

    def _replace(self, select: exp.Select, item: exp.Subquery) -> None:
        """A subquery by its node; it stays where it is if there is no plan for it."""
        names = item.this.named_selects
        source = self._made_of(item.this) if len(set(names)) == len(names) else None
        if source is None:
            return
        alias = item.alias
        new = parse_table(source.name)
        new.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
        new.set("joins", item.args.get("joins"))
        item.replace(new)
        self._sources[alias] = source
        to = {name: f"c{place}" for place, name in enumerate(names)}
        for each in select.root().find_all(exp.Column):
            if each.table == alias:
                each.set("this", exp.to_identifier(to[each.name], quoted=True))

    def _over_limit(self, query: exp.Query, names: list[str]) -> exp.Select:
        """LIMIT of a node. What it sorts by is a column of the node."""
        if query.args.get("order") is None:
            raise Unsupported("it has LIMIT without ORDER BY")
        cuts = {name: query.args.get(name) for name in ("limit", "offset")}
        if any(node.find(exp.Column, exp.Select) for node in cuts.values() if node):
            raise Unsupported("its LIMIT is computed")
        inner = query.copy()
        for clause in cuts:
            inner.set(clause, None)
        order = [(sorted_by(inner, each), each) for each in inner.args["order"].expressions]
        if not (isinstance(inner, exp.Select) and distinct_on(inner)):
            inner.set("order", None)
        source = self._make(inner)
        over = self._select_all(source, names)
        alias = next(items(over)).alias
        for place, each in order:
            each.set("this", column(f"c{place}", alias))
        over.set("order", exp.Order(expressions=[each for _, each in order]))
        for clause, value in cuts.items():
            over.set(clause, value)
        return over

    def _select_all(self, source: Source, names: list[str]) -> exp.Select:
        """All rows of a node; it may have more columns than names."""
        alias = next(self._names)
        self._sources[alias] = source
        values = [named(column(f"c{place}", alias), name) for place, name in enumerate(names)]
        return exp.Select(expressions=values).from_(our_table(f"n_{-source.oid}", alias))

    # Nodes.

    def _made_of(self, query: exp.Query) -> Source | None:
        """A node of a query, which stays as it is; None if it has no plan."""
        made, sources, kept = list(self._made), dict(self._sources), dict(self._kept)
        try:
            return self._make(query.copy())
        except Unsupported:
            self._made, self._sources, self._kept = made, sources, kept
            return None

    def _make(self, query: exp.Query) -> Source:
        """A node of a query. Raises Unsupported if it has no plan."""
        query = self._over(query, query.named_selects)
        selects = [query] if isinstance(query, exp.Select) else arms(query)
        for select in selects:
            give_names(select, [f"c{place}" for place in range(len(select.expressions))])
        if len(selects) == 1:
            self._add_groups(selects[0])
        text = write(same_text(query))
        if text in self._kept:
            return self._kept[text]
        number = self._described.stream_id + len(self._made) + 1
        if len(self._made) == MOST_NODES:
            raise Unsupported(f"it has more than {MOST_NODES} parts that could be kept by themselves")
        shapes = [self._shape(select) for select in selects]
        columns = node_columns(shapes, self._probe(query).columns)
        for each in columns:
            if not each.hashable or not each.deterministic:
                raise Unsupported(f"a subquery has a column of type {each.type}, whose equal values may differ")
        table = f'"tide_stream"."n_{number}"'
        described = replace(self._described, stream_id=number, table=table, columns=columns)
        body = query.copy()
        plan = self._plan_of(query, described)
        self._made.append(Node(number, write(body), plan, len(columns)))
        self._bodies[f"n_{number}"] = body
        captured = tuple(each.name for each in columns)
        self._kept[text] = Source(-number, table, columns, plan.key, captured)
        return self._kept[text]

    def _add_groups(self, select: exp.Select) -> None:
        """What it groups by becomes part of the node: so that its rows have a key."""
        if select.args.get("distinct") or is_cut(select):
            return
        shown = [bare(each) for each in select.expressions]
        for value in groups(select):
            if value not in shown:
                select.append("expressions", named(value.copy(), f"c{len(select.expressions)}"))

    def _limited(self, query: exp.Select, described: Described) -> Plan:
        """LIMIT of a node: it is small beside what the node is made of."""
        shape = self._shape(query)
        first = bare(query.args["order"].expressions[0].this)
        self._add_indexes({source.oid: [(first.name,)] for source in described.sources})
        return Plan(
            kind="rows",
            key=unique_key(shape, query),
            groups=0,
            fields=(),
            out=None,
            whole=None,
            exact={},
            indexes=(),
            sources=frozenset(source.oid for source in described.sources),
            _change=lambda _changed: Change("full", "rows", None, LIMITED),
        )

    def _index(self, query: exp.Query) -> None:
        """Nodes are joined by index."""
        wanted: dict[int, list[tuple[str, ...]]] = {}
        for select in [query] if isinstance(query, exp.Select) else arms(query):
            shape = self._shape(select)
            for equality in shape.equalities:
                for alias, name in (equality.one, equality.other):
                    if shape.instances[alias].source.is_node:
                        wanted.setdefault(shape.instances[alias].source.oid, []).append((name,))
        self._add_indexes(wanted)

    def _add_indexes(self, wanted: dict[int, list[tuple[str, ...]]]) -> None:
        for place, node in enumerate(self._made):
            if -node.number in wanted and node.plan.key != ():
                indexes = dict.fromkeys([*node.plan.indexes, *wanted[-node.number]])
                self._made[place] = replace(node, plan=replace(node.plan, indexes=tuple(indexes)))
