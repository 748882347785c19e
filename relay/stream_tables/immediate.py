"""What writers may do themselves: mode IMMEDIATE.

A trigger knows the rows of its own statement, and sees everything else as it is now. One command may change several
tables, and then each trigger sees all of that. So the rows of a join that were there before cannot be counted; what is
sound is a query of one table, which is read once, and the result for the affected values made again from the present.
"""

from relay.stream_tables.plan import Change, Unsupported
from relay.stream_tables.strategies import Changed, Select


def reads_one_table(parts: list[Select]) -> bool:
    """Whether each SELECT of the query, one or those of a UNION ALL, reads one table, once: changes add up."""
    return all(len(part.shape.instances) == 1 and part.is_linear(_sources(part)) for part in parts)


def keyed_change(part: Select, changed: Changed) -> Change:
    """The result for the affected values, made again. Raises Unsupported."""
    change = part.keyed(changed)
    if change is None:
        names = ", ".join(dict.fromkeys(each.source.name for each in part.changed(changed)))
        raise Unsupported(
            f"it reads more than one table, or one of them twice, and no column of the result says which rows of it"
            f" a change of {names} affects"
        )
    return change


def refuse_gaps(changes: dict[Changed, Change]) -> None:
    """Each table by itself must have its statement. Raises Unsupported."""
    for some, change in changes.items():
        if len(some) == 1 and change.text is None:
            raise Unsupported(change.reason or "no statement is proven")


def _sources(part: Select) -> Changed:
    return frozenset(each.source.oid for each in part.shape.instances.values())
