"""The keys of webhooks: of the sink and the source."""

import base64
import re
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

import relay
from relay.backends.common.addresses import check_literal
from relay.backends.common.keys import has_reference, without_references
from relay.backends.common.tls import TlsKeys
from relay.backends.sink import SinkConfig
from relay.backends.source import SourceConfig
from relay.backends.webhook.headers import RequestHeaders, check_headers
from relay.backends.webhook.signatures import Scheme, standard_key
from relay.backends.webhook.url import UrlTemplate
from relay.errors import ConfigError
from relay.known_secrets import remember, remember_login

# Up to the path or the query; all of it where the scheme itself may be a reference.
_AUTHORITY = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://(?:\$\{[^{}]*\}|[^/?#])*)|.*", re.DOTALL)
_PATH = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*")


class Bearer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    type: Literal["bearer"]
    token: Annotated[str, Field(min_length=1, repr=False)]


class Basic(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    type: Literal["basic"]
    user: Annotated[str, Field(pattern="^[^:]*$")]
    password: Annotated[str, Field(repr=False)]


Secret = Annotated[str, Field(min_length=1)]
HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=100)]


class ReceiverKeys(TlsKeys):
    """How receivers are spoken to: by the webhook sink, and by HTTP jobs."""

    headers: Annotated[dict[str, str], Field(repr=False)] = Field(default={})
    auth: Annotated[Bearer | Basic | None, Field(discriminator="type", repr=False)] = None
    signing_secret: Annotated[Secret | None, Field(repr=False)] = None
    signing_secrets: Annotated[list[Secret], Field(repr=False, max_length=8)] = Field(default=[])
    """Several, while one replaces another: each request carries a signature by each."""
    retry_on: list[Annotated[int, Field(ge=400, le=499)]] = Field(default=[])
    """Statuses that are retried, in addition to 408, 425, 429 and all from 500."""
    allow_http: bool = False
    allow_private_network: bool = False

    @property
    def secrets(self) -> list[str]:
        """Every signing secret, once."""
        return list(dict.fromkeys([*([self.signing_secret] if self.signing_secret else []), *self.signing_secrets]))

    @property
    def request_headers(self) -> RequestHeaders:
        headers = dict(self.headers)
        if isinstance(self.auth, Basic):
            pair = f"{self.auth.user}:{self.auth.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        elif self.auth is not None:
            headers["Authorization"] = f"Bearer {self.auth.token}"
        if not any(name.lower() == "user-agent" for name in headers):
            headers["User-Agent"] = f"tide-relay/{relay.__version__}"
        return RequestHeaders(headers, [standard_key(secret) for secret in self.secrets])

    def remember_secrets(self) -> None:
        """A receiver may repeat in its answer what it was sent."""
        secrets = [*self.secrets, *(v for k, v in self.headers.items() if k.lower() not in PLAIN_HEADERS)]
        if isinstance(self.auth, Basic):
            remember_login(self.auth.user, self.auth.password)
        elif self.auth is not None:
            secrets.append(self.auth.token)
        for secret in secrets:
            remember(secret)

    @field_validator("headers")
    @classmethod
    def _headers_can_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        check_headers(headers)
        return headers

    @field_validator("signing_secret")
    @classmethod
    def _secret_is_a_key(cls, secret: str | None) -> str | None:
        if secret is not None and not has_reference(secret):
            standard_key(secret)
        return secret

    @field_validator("signing_secrets")
    @classmethod
    def _secrets_are_keys(cls, secrets: list[str]) -> list[str]:
        for secret in secrets:
            cls._secret_is_a_key(secret)
        return secrets

    @model_validator(mode="after")
    def _authorizes_once(self) -> Self:
        if self.auth is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("auth and a header Authorization: keep one of the two")
        return self


PLAIN_HEADERS = frozenset({"content-type", "accept", "user-agent"})


def check_scheme(scheme: str, *, allow_http: bool) -> None:
    """Raises ValueError."""
    if scheme == "http" and not allow_http:
        raise ValueError("url begins with http://, which anyone on the way can read: use https://, or set allow_http")


class WebhookSinkConfig(ReceiverKeys, SinkConfig):
    url: Annotated[str, Field(repr=False, validation_alias=AliasChoices("url", "webhook_url"))]
    """A template of the sink's own, not the subject template: what stands for a variable has to be percent-encoded."""
    method: Annotated[
        Literal["POST", "PUT", "PATCH"], BeforeValidator(lambda v: v.upper() if type(v) is str else v)
    ] = "POST"
    request_timeout_ms: Annotated[int | None, Field(ge=10, le=3_600_000)] = None
    """Of one request; `timeout_ms` is the limit of a whole batch."""
    max_in_flight: Annotated[int, Field(ge=1, le=64)] = 8
    batch: bool = False
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    """Of one JSON array; a larger record goes alone."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        # A reference in the path or the query says nothing about where the request goes.
        if not has_reference(_AUTHORITY.match(self.url)[0]):  # type: ignore[index]  # it matches every text
            self._check_url(without_references(self.url))
        return self

    def _check_url(self, url: str) -> None:
        try:
            origin = UrlTemplate(url).origin
        except ConfigError as error:
            text = str(error)
            raise ValueError(text if text.startswith("url") else f"url {text}") from None
        check_scheme(origin.scheme, allow_http=self.allow_http)
        try:
            check_literal(origin.host, allow_private=self.allow_private_network)
        except ValueError as error:
            raise ValueError(f"url: {error}") from None


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

    def extras(self, source_type: str) -> tuple[str, ...]:  # noqa: ARG002
        """It is received by `relay api`."""
        return ("api",)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every signing secret, once."""
        return tuple(dict.fromkeys([*([self.signing_secret] if self.signing_secret else []), *self.signing_secrets]))

    @field_validator("path")
    @classmethod
    def _path_is_plain(cls, path: str | None) -> str | None:
        if path is None or has_reference(path):
            return path
        plain = path.removeprefix("/").removeprefix("hooks/")
        if not _PATH.fullmatch(plain):
            raise ValueError("must be letters, digits and - _ . ~, in parts separated by /, such as shop/orders")
        return plain

    @model_validator(mode="after")
    def _has_a_secret(self) -> Self:
        if not self.secrets:
            raise ValueError("signing_secret is missing: without it, anyone could call")
        if self.scheme == "standard":
            for secret in self.secrets:
                if not has_reference(secret):
                    standard_key(secret)
        return self
