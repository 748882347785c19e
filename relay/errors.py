"""Every error that the relay raises on purpose.

RelayError
├── ConfigError          the configuration is invalid: a person must change it
│   └── MissingExtra     a backend's client library is not installed
├── NotConnected         a server is unreachable or refused the connection: reconnect and retry later
├── Fenced               another drain owns this pipeline now: stop at once, publish nothing more
├── Refused              a call of the application is refused, and would be again
│   ├── BadValue         a value cannot be sent, such as NaN in a payload: also a ValueError
│   ├── TooLarge         a message or a call exceeds a limit
│   ├── NotFound         there is no outbox or queue of this name
│   ├── Disabled         the outbox or queue takes nothing now
│   ├── NotAllowed       the role lacks the right
│   └── Conflict         the key is already in use, for something else
└── MigrationError       the schema of the database is not the one that this version needs

A caller asks two questions only: retry or not (is it a ConfigError), reconnect or not (is it NotConnected).
Messages say what happened, to which pipeline or message, and what to do next. They are bounded and hold no secret,
whatever foreign text they were built from.
"""

from relay.masking import mask


class RelayError(Exception):
    """The root of the tree."""

    def __init__(self, text: str = "") -> None:
        super().__init__(mask(text))


class ConfigError(RelayError):
    """The configuration is invalid; a retry does not help until a person changes it."""


class MissingExtra(ConfigError):
    """The client library of a configured backend is not installed."""

    def __init__(self, backend: str, extra: str) -> None:
        super().__init__(
            f"backend {backend!r} needs a library that is not installed: pip install 'tide-relay[{extra}]'"
        )


class NotConnected(RelayError):
    """A server is unreachable, or dropped the connection; reconnect and retry after a pause.

    `code` is a short stable word for metrics and listings, such as `timeout` or `auth`.
    """

    def __init__(self, reason: str, *, code: str = "not_connected") -> None:
        super().__init__(reason)
        self.code = code


class Fenced(RelayError):
    """This drain no longer owns the pipeline; what it holds belongs to another drain."""


class MigrationError(RelayError):
    """The schema of the database is behind, ahead of, or different from the one that this version needs."""


class Refused(RelayError):
    """A call of the application is refused, and would be again until something changes.

    `sqlstate` is that of PostgreSQL, whose error is the cause, and whose transaction can only be rolled back; it is
    None if nothing was sent.
    """

    def __init__(self, text: str, *, sqlstate: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class BadValue(Refused, ValueError):
    """A value cannot be sent or stored. The text says where in the value, but does not repeat it."""


class TooLarge(Refused):
    """A message, or all of a call, exceeds a limit."""


class NotFound(Refused):
    """There is no outbox or queue of this name."""


class Disabled(Refused):
    """The outbox or queue takes nothing now."""


class NotAllowed(Refused):
    """The role lacks the right."""


class Conflict(Refused):
    """The key is already in use, for something else."""
