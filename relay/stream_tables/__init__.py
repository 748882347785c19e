"""Incremental refreshes of stream tables: from the text of a query to the texts that find what a change of its sources
changes in its result.

Nothing here reads or writes a table. What is not proven is `Unsupported`, and computed as a whole.

`plan` is the interface. A text becomes a tree of known nodes (`query`, by `dialect`) in which everything has a name of
its own (`names`); `shape` and `joins` say what it is made of, `classes` and `keys` what its tables have in common, by
what its rows are unique, `forms`, `types` and `steady` what equality does not say. `delta` makes the trees of a change,
`state` those of groups; `strategies` chooses among them, `planning` puts the plan of one query together, and `nodes`
takes a query apart where that yields a better one (`rewrite` and `regroup` say how it is written then: `full_joins`,
`not_in`, `computed_groups`, `sides` each for one form). `analysis` does either.
"""

from relay.stream_tables.analysis import analyse
from relay.stream_tables.plan import (
    VERSION,
    Change,
    Column,
    Described,
    Field,
    Function,
    Node,
    Plan,
    Read,
    Reader,
    Source,
    Step,
    Unsupported,
)

__all__ = [
    "VERSION",
    "Change",
    "Column",
    "Described",
    "Field",
    "Function",
    "Node",
    "Plan",
    "Read",
    "Reader",
    "Source",
    "Step",
    "Unsupported",
    "analyse",
]
