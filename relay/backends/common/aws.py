"""Amazon's services: the keys that all of them share, and how a client of boto3 is made from them.

A client may be used by several threads; it is made from a session of its own, because sessions may not. botocore never
retries: waiting and retrying are decided once, above the sinks and sources.
"""

from functools import cache
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, Field, model_validator

from relay.backends.common.addresses import check_no_cloud_service, refuse_cloud_services
from relay.backends.common.aws_errors import AWS_ERRORS
from relay.backends.common.keys import AsciiHost, has_reference
from relay.backends.common.tls import check_readable
from relay.errors import ConfigError, MissingExtra
from relay.masking import MASKED, mask
from relay.reach import check_ambient

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_LONGEST_REASON = 500


class AwsKeys(BaseModel):
    """To be inherited by a configuration, before `SinkConfig` or `SourceConfig`."""

    region: Annotated[str | None, Field(validation_alias=AliasChoices("region", "aws_region"))] = None
    """Default: as boto3 finds it on the worker's machine."""
    endpoint_url: Annotated[
        AsciiHost | None, Field(validation_alias=AliasChoices("endpoint_url", "aws_endpoint_url"), repr=False)
    ] = None
    """For services that are not Amazon's own, and for private endpoints."""
    access_key_id: Annotated[
        str | None, Field(validation_alias=AliasChoices("access_key_id", "aws_access_key_id"), repr=False)
    ] = None
    """Default, if the operator permits: boto3's chain (environment, files, the machine's or container's role)."""
    secret_access_key: Annotated[
        str | None, Field(validation_alias=AliasChoices("secret_access_key", "aws_secret_access_key"), repr=False)
    ] = None
    session_token: Annotated[
        str | None, Field(validation_alias=AliasChoices("session_token", "aws_session_token"), repr=False)
    ] = None
    profile: Annotated[str | None, Field(validation_alias=AliasChoices("profile", "aws_profile"))] = None
    """A profile of the shared credentials file on the worker's machine."""
    role_arn: str | None = None
    """A role to assume with these credentials."""
    tls_ca: str | None = None
    tls_verify: bool = True
    allow_http: bool = False
    """Without TLS, anyone on the way can read the messages; a service on this machine needs no permission."""

    @model_validator(mode="after")
    def _is_whole(self) -> "AwsKeys":
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key need each other")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token needs access_key_id and secret_access_key")
        if self.profile is not None and self.access_key_id is not None:
            raise ValueError("profile and access_key_id are two ways to say who we are; keep one")
        if self.endpoint_url is not None:
            self.check_url("endpoint_url", self.endpoint_url)
        return self

    def check_url(self, key: str, url: str) -> None:
        """Raises ValueError for an invalid URL, and for http to another machine without `allow_http`."""
        if has_reference(url):
            return
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{key} must be a URL that begins with https:// (or http://)")
        if parts.username is not None or parts.password is not None:
            raise ValueError(f"{key} must not hold credentials: use access_key_id and secret_access_key")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not self.allow_http:
            raise ValueError(f"{key} has no TLS: write https://, or set allow_http to true if you mean it")
        try:
            check_no_cloud_service(url)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None


def make_client(
    service: str,
    extra: str,
    config: AwsKeys,
    where: str,
    *,
    timeout_seconds: float,
    read_timeout_seconds: float | None = None,
    endpoint_url: str | None = None,
    **options: Any,
) -> Any:
    """A client of boto3 for `service`, such as `s3`; nothing is sent yet, except to assume a role.

    `options` are those of botocore's `Config`, such as `max_pool_connections`. Raises MissingExtra, and ConfigError
    when someone must change something.
    """
    try:
        import boto3  # type: ignore[import-untyped]
        import botocore.exceptions  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtra(service, extra) from error
    check_readable(config, ("tls_ca",), where)
    if endpoint := endpoint_url or config.endpoint_url:
        refuse_cloud_services(endpoint, where, timeout_seconds)
    if config.access_key_id is None:
        check_ambient(f"{where}: access_key_id is missing{' and profile is given' if config.profile else ''}")
    settings = Config(
        connect_timeout=timeout_seconds,
        read_timeout=timeout_seconds if read_timeout_seconds is None else read_timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": 1},
        tcp_keepalive=True,
        user_agent_extra="tide-relay",
        **options,
    )
    try:
        session = boto3.session.Session(
            botocore_session=_session(),
            aws_access_key_id=config.access_key_id,
            aws_secret_access_key=config.secret_access_key,
            aws_session_token=config.session_token,
            region_name=config.region,
            profile_name=config.profile,
        )
        if config.role_arn is not None:
            _assume_role(session, config.role_arn, config.region, settings)
        return session.client(
            service,
            endpoint_url=endpoint,
            config=settings,
            verify=(config.tls_ca or True) if config.tls_verify else False,
        )
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise ConfigError(f"{where}: {described(error, config)}{advice(AWS_ERRORS.verdict(error).code)}") from error


def _session() -> Any:
    """A session of botocore that shares what it knows of services with the others: else 12 MB and 0.2 s for each."""
    import botocore.session  # type: ignore[import-untyped]

    session = botocore.session.Session()
    session.register_component("data_loader", _shared_loader())
    return session


@cache
def _shared_loader() -> Any:
    from botocore.loaders import create_loader  # type: ignore[import-untyped]

    return create_loader()


def described(error: BaseException, config: AwsKeys) -> str:
    """What the client says, without who we are."""
    text = str(error) or type(error).__name__
    # Ours first: masked in part, they would not be found whole any more.
    for secret in (config.secret_access_key, config.session_token, config.access_key_id):
        if secret:
            text = text.replace(secret, MASKED)
    text = mask(text)
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + " ..."


def advice(code: str) -> str:
    """What to do about it, to be put after the error; empty where the error says all."""
    return _ADVICE.get(code, "")


_ADVICE = {
    "auth": " (set access_key_id and secret_access_key, or give the worker's machine a role)",
    "forbidden": " (permit it in the policy of the user or role)",
    "no_region": " (set region)",
    "tls": " (name the authority in tls_ca)",
}


def _assume_role(session: Any, role_arn: str, region: str | None, settings: Any) -> None:
    """From now on the session's clients act as that role; its credentials are renewed before they expire."""
    from functools import partial

    from botocore.credentials import (  # type: ignore[import-untyped]
        AssumeRoleCredentialFetcher,
        DeferredRefreshableCredentials,
    )
    from botocore.exceptions import NoCredentialsError

    inner = session._session
    source = inner.get_credentials()
    if source is None:
        raise NoCredentialsError
    fetcher = AssumeRoleCredentialFetcher(
        partial(inner.create_client, region_name=region, config=settings),
        source,
        role_arn,
        extra_args={"RoleSessionName": "tide-relay"},
    )
    inner._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
