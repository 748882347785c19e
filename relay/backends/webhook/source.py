"""The webhook source: other systems call us. `relay api` receives; no worker drains a pipeline of this kind.

Here is only what such a pipeline is configured with, and a source that says who does the work.
"""

import re
from typing import Annotated, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from relay.backends.source import PassiveSource, SourceConfig, SourceFeatures
from relay.backends.webhook.signatures import Scheme, standard_key

_REFERENCE = re.compile(r"\$\{(?:env|file):[^{}]+\}")
_PATH = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*")

Secret = Annotated[str, Field(min_length=1)]
HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=100)]


class WebhookSourceConfig(SourceConfig):
    path: Annotated[str | None, Field(max_length=200)] = None
    """After `/hooks/`; the name of the pipeline where it is null."""
    scheme: Scheme = "standard"
    signing_secret: Annotated[Secret | None, Field(repr=False)] = None
    signing_secrets: Annotated[list[Secret], Field(repr=False, max_length=8)] = Field(default=[])
    """Several, while one replaces another: a signature by any of them is good."""
    signature_header: HeaderName = "X-Signature-256"
    """Of the scheme `hmac`."""
    tolerance_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    """How old, or new, a signature may be; for `standard` and `stripe`, which sign the time."""
    idempotency_header: HeaderName | None = None
    """Has the event id; the scheme's own where it is null."""
    max_body_bytes: Annotated[int, Field(ge=1, le=64 * 1024 * 1024)] = 1024 * 1024
    rate_limit: Annotated[float | None, Field(gt=0, le=1_000_000)] = None
    """Requests a second, in each process."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every signing secret, once."""
        return tuple(dict.fromkeys([*([self.signing_secret] if self.signing_secret else []), *self.signing_secrets]))

    @field_validator("path")
    @classmethod
    def _path_is_plain(cls, path: str | None) -> str | None:
        if path is None or _REFERENCE.search(path):
            return path
        plain = path.removeprefix("/").removeprefix("hooks/")
        if not _PATH.fullmatch(plain):
            raise ValueError("must be letters, digits and - _ . ~, in parts separated by /, such as shop/orders")
        return plain

    @model_validator(mode="after")
    def _has_a_secret(self) -> Self:
        if not self.secrets:
            raise ValueError("signing_secret is missing: nobody could tell who is calling")
        if self.scheme == "standard":
            for secret in self.secrets:
                if not _REFERENCE.search(secret):
                    standard_key(secret)
        return self


class WebhookSource(PassiveSource):
    """Passive: see the module's text."""

    features: ClassVar[SourceFeatures] = SourceFeatures(
        ordered=False, keeps_headers=True, redelivers=True, needs_credentials=True, passive=True
    )
    config_model: ClassVar[type[SourceConfig]] = WebhookSourceConfig
    brought_by = "relay api"
