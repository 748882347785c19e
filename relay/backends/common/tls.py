"""TLS, for every client that takes a context or files: the keys, and what they mean. Verified unless told otherwise."""

import ssl
from collections.abc import Iterable
from typing import Self

from pydantic import BaseModel, model_validator

from relay.errors import ConfigError
from relay.reach import read_secret_file

FILE_LIMIT_BYTES = 8 * 1024 * 1024
"""The bundle of a system's certificate authorities is a quarter of a megabyte."""


class TlsKeys(BaseModel):
    """Mixed into the configuration of a sink or source. Paths are on the worker's machine."""

    tls_ca: str | None = None
    """Certificates to trust; the system's where it is null."""
    tls_cert: str | None = None
    """Our own certificate, with `tls_key`."""
    tls_key: str | None = None
    tls_verify: bool = True

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key need each other")
        return self

    @property
    def asks_for_tls(self) -> bool:
        """Whether any of the keys is set: they mean nothing without TLS."""
        return bool(self.tls_ca or self.tls_cert or not self.tls_verify)


def check_readable(keys: BaseModel, paths: Iterable[str], where: str) -> None:
    """Raises ConfigError for a file that cannot be read: clients report it without its name. `paths` names keys."""
    for key in paths:
        if getattr(keys, key) is not None:
            read_file(getattr(keys, key), key, where)


def read_file(path: str, key: str, where: str) -> bytes:
    """Raises ConfigError, which names the key, for a file that cannot be read, or that is not for pipelines."""
    try:
        return read_secret_file(path, FILE_LIMIT_BYTES)
    except ConfigError as error:
        raise ConfigError(f"{where}: {key} {path!r} {error}") from None


def tls_context(keys: TlsKeys, where: str) -> ssl.SSLContext:
    """Raises ConfigError, which names the key, for a file that cannot be read or used."""
    check_readable(keys, ("tls_ca", "tls_cert", "tls_key"), where)
    try:
        context = ssl.create_default_context(cafile=keys.tls_ca)
        if keys.tls_cert is not None:
            context.load_cert_chain(keys.tls_cert, keys.tls_key)
    except ssl.SSLError as error:
        raise ConfigError(f"{where}: tls_ca, tls_cert or tls_key is not usable: {error.reason}") from None
    if not keys.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
