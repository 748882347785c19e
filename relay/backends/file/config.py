"""The keys of files: of the sink and the source."""

from typing import Annotated

from pydantic import Field

from relay.backends.common.keys import AbsolutePath
from relay.backends.sink import SinkConfig
from relay.backends.source import SourceConfig


class FileSinkConfig(SinkConfig):
    path: Annotated[AbsolutePath, Field(min_length=1)]
    """The file, as an absolute path; its folder must exist."""
    fsync: bool = True
    """False: a batch counts as delivered once the system has it; a power failure can then lose it."""
    permissions: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] = "0640"
    """Of a file that the sink creates, in octal; the umask applies."""


class FileSourceConfig(SourceConfig):
    path: Annotated[AbsolutePath, Field(min_length=1)]
    """The file, as an absolute path."""
    follow: bool = True
    """False: the file is complete. It is not followed over rotations, and its last line may lack its end."""
    poll_ms: Annotated[int, Field(ge=1, le=60_000)] = 50
    """How often to look for more at the end of the file."""
    rotate_wait_ms: Annotated[int, Field(ge=0, le=600_000)] = 1_000
    """How long a file that was rotated away must have been silent before the next one is read."""
    max_line_bytes: Annotated[int, Field(ge=1_024, le=268_435_456)] = 1_048_576
    """Of a longer line only so much is read, and one byte more."""
