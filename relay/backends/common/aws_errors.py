"""What an error of Amazon's services means: botocore's exceptions, and the codes that any service may answer."""

from collections.abc import Collection, Hashable, Iterator, Mapping

from relay.backends.common.error_table import ErrorTable

_CODES = {
    "auth": """AuthFailure AuthorizationHeaderMalformed ExpiredToken ExpiredTokenException IncompleteSignature
        InvalidAccessKeyId InvalidClientTokenId InvalidSecurity InvalidSignatureException InvalidToken
        MissingAuthenticationToken MissingAuthenticationTokenException MissingSecurityHeader NotSignedUp OptInRequired
        RequestExpired RequestTimeTooSkewed SignatureDoesNotMatch TokenRefreshRequired UnrecognizedClientException""",
    "forbidden": """AccessDenied AccessDeniedException AllAccessDisabled AccountProblem NotAuthorized
        UnauthorizedOperation""",
    "throttled": """BandwidthLimitExceeded EC2ThrottledException LimitExceededException PriorRequestNotComplete
        ProvisionedThroughputExceededException RequestLimitExceeded RequestThrottled RequestThrottledException
        SlowDown Throttling ThrottledException ThrottlingException TooManyRequestsException
        TransactionInProgressException""",
    "unavailable": "InternalError InternalFailure ServiceUnavailable ServiceUnavailableException",
    "timeout": "RequestTimeout RequestTimeoutException",
}
_STATUSES: dict[Hashable, str] = {
    # Where an answer has no code that we know.
    401: "auth",
    403: "forbidden",
    408: "timeout",
    429: "throttled",
    500: "unavailable",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}
SQS_PREFIX = "AWS.SimpleQueueService."
"""Before the names of errors in the older protocol of SQS."""

_UNKNOWN_ANSWER = object()
_OUT_OF_TIME = object()


def aws_table(
    answers: Mapping[Hashable, str] | None = None,
    words: Mapping[str, str] | None = None,
    permanent: Collection[str] = (),
    needs_operator: Collection[str] = (),
) -> ErrorTable:
    """The table of one service; what it says about a code goes before what is common to all services."""
    return ErrorTable(
        exceptions=_EXCEPTIONS,
        answers={
            **named(_CODES),
            **_STATUSES,
            _UNKNOWN_ANSWER: "rejected",
            _OUT_OF_TIME: "timeout",
            **(answers or {}),
        },
        # The second is a server without TLS.
        words={**(words or {}), "certificate verify failed|wrong version number": "tls"},
        permanent=permanent,
        needs_operator={"auth", "forbidden", "tls", "bad_config", "no_region", *needs_operator},
        answers_of=_answers_of,
    )


def named(codes: Mapping[str, str]) -> dict[Hashable, str]:
    """name -> code, from code -> names separated by spaces."""
    return {name: code for code, names in codes.items() for name in names.split()}


def _answers_of(error: BaseException) -> Iterator[Hashable]:
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        said = response.get("Error", {})
        for name in (str(said.get("Code")), str(said.get("QueryErrorCode"))):
            yield name.removeprefix(SQS_PREFIX)
        yield response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        yield _UNKNOWN_ANSWER
    elif type(error).__name__ in _EXCEPTIONS["botocore.exceptions"]["not_connected"].split() and _is_out_of_time(error):
        yield _OUT_OF_TIME


def _is_out_of_time(error: BaseException | None) -> bool:
    """Whether the socket's time limit lies beneath it: to boto3 a request that cannot be sent in time is a closed
    connection."""
    while error is not None and not isinstance(error, TimeoutError):
        error = error.__cause__ or error.__context__
    return error is not None


_EXCEPTIONS = {
    "botocore.exceptions": {
        # An SSLError that `words` does not know is a connection that broke.
        "not_connected": """ConnectionClosedError ConnectionError EndpointConnectionError HTTPClientError
            ProxyConnectionError ResponseStreamingError SSLError""",
        "timeout": "ConnectTimeoutError ReadTimeoutError",
        # Temporary credentials could not be fetched now.
        "credentials": "CredentialRetrievalError MetadataRetrievalError TokenRetrievalError",
        "no_region": "NoRegionError",
        "auth": """NoAuthTokenError NoCredentialsError PartialCredentialsError UnknownTokenProviderError SSOError
            SSOTokenLoadError UnauthorizedSSOTokenError LoginError LoginAuthorizationCodeError LoginRefreshRequired
            LoginInsufficientPermissions LoginTokenLoadError""",
        "bad_config": """ApiVersionNotFoundError BaseEndpointResolverError ConfigNotFound ConfigParseError
            DataNotFoundError EndpointProviderError EndpointResolutionError EndpointVariantError
            InfiniteLoopConfigError InvalidChecksumConfigError InvalidConfigError InvalidDNSNameError
            InvalidDefaultsMode InvalidEndpointConfigurationError InvalidEndpointDiscoveryConfigurationError
            InvalidHostLabelError InvalidIMDSEndpointError InvalidIMDSEndpointModeError InvalidMaxRetryAttemptsError
            InvalidProxiesConfigError InvalidRegionError InvalidRetryConfigurationError InvalidRetryModeError
            InvalidS3AddressingStyleError InvalidS3UsEast1RegionalEndpointConfigError
            InvalidSTSRegionalEndpointsConfigError MD5UnavailableError MissingDependencyException ProfileNotFound
            ServiceNotInRegionError UnknownCredentialError UnknownEndpointError UnknownEndpointResolutionBuiltInName
            UnknownFIPSEndpointError UnknownRegionError UnknownServiceError UnknownSignatureVersionError
            UnsupportedOutpostResourceError UnsupportedS3AccesspointConfigurationError UnsupportedS3ArnError
            UnsupportedS3ConfigurationError UnsupportedS3ControlArnError UnsupportedS3ControlConfigurationError
            UnsupportedServiceProtocolsError UnsupportedSignatureVersionError""",
        # Parts of botocore that the relay does not use, and mistakes in using it.
        "rejected": """AliasConflictParameterError AwsChunkedWrapperError CapacityNotAvailableError EventStreamError
            IncompleteReadError InvalidExpressionError MissingParametersError MissingServiceIdError
            OperationNotPageableError PaginationError ParamValidationError RangeError RefreshWithMFAUnsupportedError
            StubAssertionError StubResponseError UnStubbedResponseError UndefinedModelAttributeError
            UnknownClientMethodError UnknownKeyError UnknownParameterError UnknownServiceStyle UnseekableStreamError
            ValidationError WaiterConfigError WaiterError ChecksumError FlexibleChecksumError BotoCoreError
            ClientError""",
    },
}

AWS_ERRORS = aws_table()
"""What is common to all services."""
