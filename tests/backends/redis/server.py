"""Redis that loses nothing of what it acknowledged when it is killed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay.local.servers import EmbeddedRedis


class DurableRedis(EmbeddedRedis):
    """With `appendfsync everysec`, a busy disk makes Redis answer up to two seconds before it writes, and what it has
    not written dies with it. Here it writes first; that it does not wait for the disk matters to power failures only.
    """

    settings = "appendfsync no\n"

    def __init__(self, data_dir: Path, program: Path | None = None) -> None:
        super().__init__(data_dir, persistent=True, program=program)

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        command, options = super().prepare()
        path = Path(command[-1])
        path.write_text(path.read_text() + self.settings)
        return command, options
