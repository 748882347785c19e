"""The text of a view to a tree of which every node is known, with WITH and views put in place.

PostgreSQL is the judge of what was understood: written back unchanged, the text must read to it exactly as before.
"""

from collections.abc import Mapping

from sqlglot import exp

from relay.stream_tables.dialect import parse, parse_table, write
from relay.stream_tables.plan import Described, Reader, Unsupported
from relay.stream_tables.trees import QUERIES, distinct_on, identifier, is_table, items, lateral_query, own, queries_in

SELECT_ARGS = {
    "expressions", "from_", "joins", "where", "group", "having", "distinct", "order", "limit", "offset"
}  # fmt: skip
ARGS: dict[type[exp.Expr], set[str]] = {
    exp.Select: SELECT_ARGS,
    exp.Table: {"this", "db", "alias", "joins", "ordinality"},
    exp.Join: {"this", "side", "kind", "on", "using"},
    exp.Group: {"expressions"},
}
"""The clauses that are understood."""

ACCEPTED = frozenset(
    """
    Select Union Except Intersect From Join Where Group Having Distinct Order Ordered Limit Offset Fetch
    LimitOptions Table TableAlias Subquery Lateral Unnest Values Tuple Alias Identifier
    Column Star Literal Boolean Null Cast DataType DataTypeParam Interval Paren Dot Anonymous Coalesce Case If And
    Or Not EQ NEQ GT GTE LT LTE Is NullSafeEQ NullSafeNEQ Between In Any All Exists Add Sub Mul Div Mod Pow Neg
    DPipe Like ILike RegexpLike RegexpILike SimilarTo Escape Array Bracket Slice Collate AtTimeZone Extract Var
    Substring Trim StrPosition CurrentDate JSONExtract JSONExtractScalar JSONBExtract JSONBExtractScalar
    JSONBContains JSONPath JSONPathRoot JSONPathKey JSONPathSubscript ArrayContainsAll ArrayContainedBy ArrayOverlaps
    BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitwiseLeftShift BitwiseRightShift ByteString ObjectIdentifier
    JSONBContainsTopKey JSONBContainsAnyTopKeys JSONBContainsAllTopKeys JSONBPathExists
    Count Sum Avg Min Max Filter WithinGroup Window WindowSpec
    """.split()  # noqa: SIM905  it is a table of words
)
"""The kinds of nodes that are understood: parts of a SELECT, expressions of one row, aggregates and windows."""
KEYWORDS = {"greatest", "least", "nullif", "row", "array"}
"""What looks like a call, and is none: it is not among the functions that PostgreSQL names."""

Bodies = Mapping[str, exp.Query]


def read_query(described: Described, read: Reader) -> exp.Query:
    """The query of a stream table. Raises Unsupported."""
    tree = parse(described.query)
    guard(tree, described.query, read)
    views = {}
    for name, text in described.views.items():
        view = parse(text)
        guard(view, text, read)
        views[_qualified(parse_table(name))] = _query(view)
    query = in_place(_query(tree), {}, views)
    for select in query.find_all(exp.Select):
        _write_out_windows(select)
    for node in query.walk():
        _accept(node, described)
    return query


def guard(tree: exp.Expr, text: str, read: Reader) -> None:
    """Raises Unsupported unless the tree, written back, reads to PostgreSQL like the text that it was parsed from."""
    if read(write(tree)).text != text:
        raise Unsupported("its text was not understood: written back, it reads differently")


def arms(query: exp.Query) -> list[exp.Select]:
    """What UNION ALL joins, or the one SELECT that it is, without an order that says nothing. Raises Unsupported."""
    if isinstance(query, exp.Select):
        if is_cut(query):
            raise Unsupported("it has LIMIT or OFFSET")
        if not distinct_on(query):
            query.set("order", None)
        return [query]
    if isinstance(query, exp.Subquery) and isinstance(query.this, QUERIES):
        return arms(query.this)
    if not isinstance(query, exp.Union) or query.args.get("distinct"):
        raise Unsupported("it has a set operation other than UNION ALL")
    if is_cut(query):
        raise Unsupported("it has LIMIT or OFFSET")
    return arms(query.left) + arms(query.right)


def is_cut(query: exp.Expr) -> bool:
    """Whether it has LIMIT or OFFSET."""
    return bool(query.args.get("limit") or query.args.get("offset"))


def in_place(query: exp.Query, known: Bodies, views: Bodies) -> exp.Query:
    """The query with each WITH and each view as a subquery where it is read. Raises Unsupported."""
    bodies = dict(known)
    clause = query.args.get("with_")
    if clause is not None:
        if clause.args.get("recursive"):
            raise Unsupported("it has WITH RECURSIVE")
        query.set("with_", None)
        for each in clause.expressions:
            bodies[each.alias] = _renamed(in_place(_query(each.this), bodies, views), each.args["alias"])
    tables, inner = [node for node in own(query) if is_table(node)], queries_in(query)
    for one in inner:
        in_place(one, bodies, views)
    for table in tables:
        body = bodies.get(table.name) if not table.db else None
        if body is None and _qualified(table) in views:
            body = in_place(views[_qualified(table)].copy(), {}, views)
        if body is not None:
            table.replace(_as_subquery(table, body.copy()))
        elif not table.db:
            raise Unsupported(f"the schema of {table.name} is not known")
    return query


def _write_out_windows(select: exp.Select) -> None:
    """Each window with what WINDOW says of its name."""
    named: dict[str, exp.Window] = {}
    for each in select.args.get("windows") or ():
        _write_out_window(each, named)
        named[each.name] = each
    select.set("windows", None)
    for node in own(select):
        if isinstance(node, exp.Window):
            _write_out_window(node, named)


def _write_out_window(window: exp.Window, named: Mapping[str, exp.Window]) -> None:
    name = window.args.get("alias")
    if name is not None:
        for clause in ("partition_by", "order", "spec"):
            if not window.args.get(clause):
                window.set(clause, named[name.name].copy().args.get(clause))
        window.set("alias", None)


def _query(tree: exp.Expr) -> exp.Query:
    if not isinstance(tree, QUERIES):
        raise Unsupported("it is no SELECT")
    return tree


def _qualified(table: exp.Table) -> str:
    return f"{identifier(table.db).sql()}.{identifier(table.name).sql()}"


def _as_subquery(table: exp.Table, body: exp.Query) -> exp.Subquery:
    alias = exp.TableAlias(this=identifier(table.alias_or_name))
    if table.args.get("alias"):
        alias.set("columns", table.args["alias"].args.get("columns"))
    return exp.Subquery(this=body, alias=alias, joins=table.args.get("joins"))


def _renamed(query: exp.Query, alias: exp.TableAlias) -> exp.Query:
    """Its output columns named as WITH names them."""
    columns = alias.args.get("columns")
    if columns:
        first = query
        while isinstance(first, exp.SetOperation):
            first = first.this
        for value, name in zip(list(first.selects), columns, strict=False):
            value.replace(exp.Alias(this=value.unalias().copy(), alias=identifier(name.name)))
    return query


def _accept(node: exp.Expr, described: Described) -> None:
    if type(node).__name__ not in ACCEPTED:
        raise Unsupported(f"{type(node).__name__} is not understood yet")
    args = {name for name, value in node.args.items() if value}
    unknown = args - next((known for kind, known in ARGS.items() if isinstance(node, kind)), args)
    if unknown:
        raise Unsupported(f"{', '.join(sorted(unknown))} of {type(node).__name__.upper()} is not understood yet")
    if isinstance(node, exp.Select):
        _accept_from(node)
    elif isinstance(node, exp.Star) and not isinstance(node.parent, exp.Count):
        raise Unsupported("it reads whole rows")
    elif isinstance(node, exp.Anonymous) and node.name not in described.functions and not _is_keyword(node):
        raise Unsupported(f"{node.name}() is not understood yet")
    elif isinstance(node, exp.Column) and node.args.get("db"):
        raise Unsupported("a column names its schema")


def _is_keyword(call: exp.Anonymous) -> bool:
    """NOT IN of a list is <> ALL of an array; of a subquery it is something else."""
    return call.name.lower() in KEYWORDS or (call.name.lower() == "all" and call.find(*QUERIES) is None)


def _accept_from(select: exp.Select) -> None:
    for item in items(select):
        is_function = isinstance(item, exp.Lateral | exp.Table) and not is_table(item) and lateral_query(item) is None
        if is_function and item.find(*QUERIES):
            raise Unsupported("a function in FROM reads a subquery")
