"""What an error of Amazon's services means: one table for botocore's exceptions, one for the codes in answers.

Each answer is (permanent, code). Permanent: this message will never be accepted. Everything else is tried again; where
that cannot help until a person acts, the code is in `NEEDS_OPERATOR`, and `open` then raises ConfigError. A service's
own codes (`relay.backends.sqs.queue`) go before these. Unknown errors count as temporary: a pipeline that stands still
can be seen and fixed, a message thrown away by mistake cannot.
"""

from collections.abc import Mapping

NEEDS_OPERATOR = frozenset({"auth", "forbidden", "tls", "bad_config", "no_region"})

_NOT_OURS = (
    # Parts of botocore that the relay does not use, and mistakes in using it.
    "AliasConflictParameterError AwsChunkedWrapperError CapacityNotAvailableError EventStreamError IncompleteReadError"
    " InvalidExpressionError MissingParametersError MissingServiceIdError OperationNotPageableError PaginationError"
    " ParamValidationError RangeError RefreshWithMFAUnsupportedError StubAssertionError StubResponseError"
    " UnStubbedResponseError UndefinedModelAttributeError UnknownClientMethodError UnknownKeyError"
    " UnknownParameterError UnknownServiceStyle UnseekableStreamError ValidationError WaiterConfigError WaiterError"
    " ChecksumError FlexibleChecksumError BotoCoreError ClientError ImminentRemovalWarning UnsupportedTLSVersionWarning"
)
_CONFIGURATION = (
    "ApiVersionNotFoundError BaseEndpointResolverError ConfigNotFound ConfigParseError DataNotFoundError"
    " EndpointProviderError EndpointResolutionError EndpointVariantError InfiniteLoopConfigError"
    " InvalidChecksumConfigError InvalidConfigError InvalidDNSNameError InvalidDefaultsMode"
    " InvalidEndpointConfigurationError InvalidEndpointDiscoveryConfigurationError InvalidHostLabelError"
    " InvalidIMDSEndpointError InvalidIMDSEndpointModeError InvalidMaxRetryAttemptsError InvalidProxiesConfigError"
    " InvalidRegionError InvalidRetryConfigurationError InvalidRetryModeError InvalidS3AddressingStyleError"
    " InvalidS3UsEast1RegionalEndpointConfigError InvalidSTSRegionalEndpointsConfigError MD5UnavailableError"
    " MissingDependencyException ProfileNotFound ServiceNotInRegionError UnknownCredentialError UnknownEndpointError"
    " UnknownEndpointResolutionBuiltInName UnknownFIPSEndpointError UnknownRegionError UnknownServiceError"
    " UnknownSignatureVersionError UnsupportedOutpostResourceError UnsupportedS3AccesspointConfigurationError"
    " UnsupportedS3ArnError UnsupportedS3ConfigurationError UnsupportedS3ControlArnError"
    " UnsupportedS3ControlConfigurationError UnsupportedServiceProtocolsError UnsupportedSignatureVersionError"
)
_WHO_WE_ARE = (
    "NoAuthTokenError NoCredentialsError PartialCredentialsError UnknownTokenProviderError SSOError SSOTokenLoadError"
    " UnauthorizedSSOTokenError LoginError LoginAuthorizationCodeError LoginRefreshRequired"
    " LoginInsufficientPermissions LoginTokenLoadError"
)

EXCEPTIONS: dict[str, tuple[bool, str]] = {
    # The connection.
    "ConnectionClosedError": (False, "not_connected"),
    "ConnectionError": (False, "not_connected"),
    "EndpointConnectionError": (False, "not_connected"),
    "HTTPClientError": (False, "not_connected"),
    "ProxyConnectionError": (False, "not_connected"),
    "ResponseStreamingError": (False, "not_connected"),
    "SSLError": (False, "not_connected"),  # what `WORDS` does not know is a connection that broke
    "ConnectTimeoutError": (False, "timeout"),
    "ReadTimeoutError": (False, "timeout"),
    # Temporary credentials could not be fetched now.
    "CredentialRetrievalError": (False, "credentials"),
    "MetadataRetrievalError": (False, "credentials"),
    "TokenRetrievalError": (False, "credentials"),
    "NoRegionError": (False, "no_region"),
    **dict.fromkeys(_WHO_WE_ARE.split(), (False, "auth")),
    **dict.fromkeys(_CONFIGURATION.split(), (False, "bad_config")),
    **dict.fromkeys(_NOT_OURS.split(), (False, "rejected")),
}
"""By class name in `botocore.exceptions`."""

_AUTH = (
    "AuthFailure AuthorizationHeaderMalformed ExpiredToken ExpiredTokenException IncompleteSignature InvalidAccessKeyId"
    " InvalidClientTokenId InvalidSecurity InvalidSignatureException InvalidToken MissingAuthenticationToken"
    " MissingAuthenticationTokenException MissingSecurityHeader NotSignedUp OptInRequired RequestExpired"
    " RequestTimeTooSkewed SignatureDoesNotMatch TokenRefreshRequired UnrecognizedClientException"
)
_FORBIDDEN = "AccessDenied AccessDeniedException AllAccessDisabled AccountProblem NotAuthorized UnauthorizedOperation"
_THROTTLED = (
    "BandwidthLimitExceeded EC2ThrottledException LimitExceededException PriorRequestNotComplete"
    " ProvisionedThroughputExceededException RequestLimitExceeded RequestThrottled RequestThrottledException SlowDown"
    " Throttling ThrottledException ThrottlingException TooManyRequestsException TransactionInProgressException"
)
_UNAVAILABLE = "InternalError InternalFailure ServiceUnavailable ServiceUnavailableException"

CODES: dict[str, tuple[bool, str]] = {
    **dict.fromkeys(_AUTH.split(), (False, "auth")),
    **dict.fromkeys(_FORBIDDEN.split(), (False, "forbidden")),
    **dict.fromkeys(_THROTTLED.split(), (False, "throttled")),
    **dict.fromkeys(_UNAVAILABLE.split(), (False, "unavailable")),
    "RequestTimeout": (False, "timeout"),
    "RequestTimeoutException": (False, "timeout"),
}
"""Codes that any service may answer."""

STATUSES: dict[int, tuple[bool, str]] = {
    # Where an answer has no code that we know.
    401: (False, "auth"),
    403: (False, "forbidden"),
    408: (False, "timeout"),
    429: (False, "throttled"),
    500: (False, "unavailable"),
    502: (False, "unavailable"),
    503: (False, "unavailable"),
    504: (False, "unavailable"),
}

WORDS: tuple[tuple[str, tuple[bool, str]], ...] = (
    ("certificate verify failed", (False, "tls")),
    ("wrong version number", (False, "tls")),  # a server without TLS
)

_Codes = Mapping[str, tuple[bool, str]]


def verdict(error: BaseException, own_codes: _Codes | None = None) -> tuple[bool, str]:
    """(permanent, code) of anything that a client of boto3 raised; `own_codes` are those of the service."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return _answer(response, own_codes or {})
    text = str(error).lower()
    for words, answer in WORDS:
        if words in text:
            return answer
    for kind in type(error).__mro__:
        known = EXCEPTIONS.get(kind.__name__) if kind.__module__ == "botocore.exceptions" else None
        if known is not None:
            return (False, "timeout") if known[1] == "not_connected" and _ran_out_of_time(error) else known
    return (False, "timeout" if isinstance(error, TimeoutError) else "not_connected")


def _ran_out_of_time(error: BaseException | None) -> bool:
    """Whether the socket's time limit lies beneath it: to boto3 a request that cannot be sent in time is a closed
    connection."""
    while error is not None and not isinstance(error, TimeoutError):
        error = error.__cause__ or error.__context__
    return error is not None


def _answer(response: dict[str, dict[str, object]], own_codes: _Codes) -> tuple[bool, str]:
    said = response.get("Error", {})
    for name in (said.get("Code"), said.get("QueryErrorCode")):
        if isinstance(name, str) and (name in own_codes or name in CODES):
            return own_codes.get(name) or CODES[name]
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return STATUSES.get(status, (False, "rejected")) if isinstance(status, int) else (False, "rejected")
