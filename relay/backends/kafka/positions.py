"""How the Kafka source writes a position, and which topic it is of.

`1042` is the offset of the last record that is done. `1042@<topic id>` also says in which topic of that name: one that
is deleted and recreated has another id (KIP-516), and counts its offsets from 0 again. `1042@<topic id>@recreated` says
that records of an earlier topic of this name were received before: the default event ids of this one then carry its id,
or the inbox would take its records for those that it has.
"""

from typing import NamedTuple

_RECREATED = "recreated"


class Suffixes(NamedTuple):
    """What follows the offset of each record of a partition."""

    id: str = ""
    """In the default event id."""
    position: str = ""


class Position(NamedTuple):
    offset: int
    topic_id: str = ""
    """Empty: the broker gave none."""
    recreated: bool = False

    @classmethod
    def parse(cls, text: str) -> "Position":
        offset, _, rest = text.partition("@")
        topic_id, _, recreated = rest.partition("@")
        return cls(int(offset), topic_id, recreated == _RECREATED)

    def __str__(self) -> str:
        return f"{self.offset}{self.suffixes.position}"

    @property
    def suffixes(self) -> Suffixes:
        if not self.topic_id:
            return Suffixes()
        known = f"@{self.topic_id}"
        return Suffixes(known, f"{known}@{_RECREATED}") if self.recreated else Suffixes("", known)
