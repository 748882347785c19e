"""Incremental refreshes of stream tables: from the text of a query to the texts that find what a change of its sources
changes in its result.

Nothing here reads or writes a table. What is not proven is `Unsupported`, and computed as a whole.
"""

from relay.stream_tables.analysis import analyse
from relay.stream_tables.plan import (
    VERSION,
    Change,
    Column,
    Described,
    Field,
    Function,
    Plan,
    Read,
    Reader,
    Source,
    Unsupported,
)

__all__ = [
    "VERSION",
    "Change",
    "Column",
    "Described",
    "Field",
    "Function",
    "Plan",
    "Read",
    "Reader",
    "Source",
    "Unsupported",
    "analyse",
]
