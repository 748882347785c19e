"""What a scheduler heard since its last turn: where to look, and no more. Bounded by what it owns."""

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Self

BELLS = "tide_outbox_notify"
ENDS = "tide_relay_drain"
CONFIGURATIONS = "tide_relay_config"


@dataclass(slots=True)
class Heard:
    """Filled while statements run. A scheduler is notified of all pipelines, and remembers those it owns."""

    outboxes: Container[str] = ()
    """Whose bells it answers."""
    pipelines: Container[str] = ()
    """Whose drains it emitted."""
    followed: Container[str] = ()
    """Of the stream tables that those it owns follow, of any owner."""
    rings: Counter[str] = field(default_factory=Counter)
    """By outbox."""
    ended: set[str] = field(default_factory=set)
    """Pipelines of which a drain is said to be over."""
    refreshed: set[str] = field(default_factory=set)
    """Those that are followed of which one is said to be over."""
    reconfigured: bool = False
    refused: Counter[str] = field(default_factory=Counter)
    """By channel: notifications that name nothing."""

    def __bool__(self) -> bool:
        return bool(self.rings or self.ended or self.refreshed or self.reconfigured or self.refused)

    def hear(self, channel: str, name: str | None) -> None:
        if name is None:
            self.refused[channel] += 1
        elif channel == BELLS:
            if name in self.outboxes:
                self.rings[name] += 1
        elif channel == ENDS:
            if name in self.pipelines:
                self.ended.add(name)
            if name in self.followed:
                self.refreshed.add(name)
        elif channel == CONFIGURATIONS:
            self.reconfigured = True

    def take(self) -> Self:
        """What was heard; from now on it is forgotten here."""
        taken = replace(self)
        self.rings, self.refused, self.ended, self.refreshed = Counter(), Counter(), set(), set()
        self.reconfigured = False
        return taken
