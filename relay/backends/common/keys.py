"""Types of keys that several configurations have. A value with a reference in it is checked once that is resolved."""

import os
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from relay.errors import ConfigError
from relay.hosts import ascii_hosts
from relay.wire.templates import RecordTemplate

_REFERENCE = re.compile(r"\$\{(?:env|file):[^{}]+\}")


def has_reference(text: str) -> bool:
    """Whether the text holds `${env:NAME}` or `${file:PATH}`, so that its value is not known yet."""
    return _REFERENCE.search(text) is not None


def without_references(text: str) -> str:
    """The text with a letter in the place of each reference, to check what is around them."""
    return _REFERENCE.sub("x", text)


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Listed = Annotated[list[str], BeforeValidator(_split)]
"""A list, or one text with commas between its elements, such as the URLs of a cluster."""

AsciiHost = Annotated[str, AfterValidator(ascii_hosts)]
"""A URL, or `host:port`, whose host a client library is given in ASCII."""

AsciiHosts = Annotated[list[AsciiHost], BeforeValidator(_split)]
"""Several of them."""


def _absolute(path: str) -> str:
    if not os.path.isabs(path) and not has_reference(path):
        raise ValueError("must be an absolute path: workers may be started in any folder")
    return path


AbsolutePath = Annotated[str, AfterValidator(_absolute)]


def check_template(text: str, key: str) -> None:
    """Raises ValueError unless the text can be rendered with a record."""
    if not has_reference(text):
        try:
            RecordTemplate(text, key)
        except ConfigError as error:
            raise ValueError(str(error)) from None
