"""What the tests of the verbs for dead letters and replays share: a pipeline whose sink refuses what it is told to."""

from relay.backends.memory.sink import forget, store
from relay.models import Failure, Record
from tests.e2e.drains import Drains
from tests.services.postgres import Database

STORE = "verbs"


class Refusing(Drains):
    """Pipeline `p` from outbox `orders` into memory."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.publish_to(sink_type="memory", name=STORE, batch_size=10)

    def close(self) -> None:
        super().close()
        forget(STORE)

    def refuse(self, *ids: int, code: str = "bad") -> None:
        """The sink has something against these messages, and nothing against others."""

        def judged(index: int, record: Record) -> Failure | None:
            return Failure(index, True, code, f"no {record.id}") if record.id in ids else None

        store(STORE).refuse = judged

    def received(self) -> list[int]:
        """The ids that arrived, in order."""
        return [record.id for record in store(STORE).received]

    def bury(self, count: int = 1, code: str = "bad") -> list[int]:
        """Publishes messages, and has all of them refused; the ids of the dead letters."""
        ids = self.publish(count)
        self.refuse(*ids, code=code)
        self.drain()
        self.refuse()
        return self.dead(ids)

    def dead(self, ids: list[int] | None = None) -> list[int]:
        """The ids of dead letters, of these messages or all."""
        found = self.query(
            "select dead_letter_id from tide.dead_letter where %s::bigint[] is null or message_id = any(%s) order by 1",
            ids, ids,
        )  # fmt: skip
        return [number for (number,) in found]
