"""Why a refresh computed the whole query although it might have followed the changes: a code, for metrics.

What PostgreSQL says, and `tide.stream_history` keeps, is for people; these are parts of it. A test shows that
the functions in SQL still say them.

============  ======================================================================================
code          meaning
============  ======================================================================================
first         there was nothing to go on from: it is new, was resumed, restored or has another query
capture       its sources, or their capture, were changed: DDL, a disabled trigger, a new partition
truncated     a source was truncated, or changed in another way that no row tells
transaction   its own transaction had changed its sources
day           a new day began, and the query reads `current_date`
cost          following so many changes was expected to take longer
analysis      these sources have changed together for the first time; the next such refresh follows
failed        the incremental refresh failed, as by a sum that is NaN
query         its query can only be computed as a whole
============  ======================================================================================
"""

REASONS = {
    "it has not been computed since it was created": "first",
    "the state of its aggregates has to be computed first": "first",
    "its query has not been analysed yet": "first",
    "the database is a copy": "first",
    "a trigger that captures changes is missing or disabled": "capture",
    "the capture of its sources was changed": "capture",
    "its sources are not what they were when its query was analysed": "capture",
    "a source was truncated": "truncated",
    "its transaction had changed its sources": "transaction",
    "a new day began": "day",
    "changed rows were expected to take": "cost",
    "rows of its sources changed": "cost",
    "has not been analysed yet": "analysis",
    "the incremental refresh failed": "failed",
}
WANTED = "its refresh_mode is FULL"
"""It was meant to be computed as a whole."""


def fallback(reason: str) -> str | None:
    """The code of a reason; None if its mode is FULL."""
    if reason == WANTED:
        return None
    return next((code for text, code in REASONS.items() if text in reason), "query")
