"""Every error that the relay raises on purpose.

RelayError
├── ConfigError          the configuration is wrong: a person must change it
│   └── MissingExtra     a backend's client library is not installed
├── NotConnected         a server cannot be reached or refused us: reopen and try later
├── Fenced               another drain owns this pipeline now: stop at once, publish nothing more
└── MigrationError       the database's schema is not the one that this version needs

A caller asks two questions only: try again or not (is it a ConfigError), reconnect or not (is it NotConnected).
Messages say what happened, to which pipeline or message, and what to do next. They never carry a secret:
whoever builds one from foreign text passes it through `relay.masking.mask`.
"""


class RelayError(Exception):
    """The root of the tree."""


class ConfigError(RelayError):
    """The configuration is wrong; trying again does not help until a person changes it."""


class MissingExtra(ConfigError):
    """A backend was configured whose client library is not installed."""

    def __init__(self, backend: str, extra: str) -> None:
        super().__init__(
            f"backend {backend!r} needs a library that is not installed: pip install 'tide-relay[{extra}]'"
        )


class NotConnected(RelayError):
    """A backend cannot be reached, or dropped the connection; reopen it and try again after a pause.

    `code` is a short stable word for metrics and listings, such as `timeout` or `auth`.
    """

    def __init__(self, reason: str, *, code: str = "not_connected") -> None:
        super().__init__(reason)
        self.code = code


class Fenced(RelayError):
    """This drain is no longer the pipeline's drain; whatever it holds belongs to another now."""


class MigrationError(RelayError):
    """The schema in the database is behind, ahead of, or different from the one this version needs."""
