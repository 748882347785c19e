"""What an error of NATS means: the client's exceptions, JetStream's error codes, and `-ERR` lines."""

from relay.backends.common.error_table import ErrorTable

ERRORS = ErrorTable(
    exceptions={
        "nats.errors": {
            "bad_header": "BadHeaderError",
            "bad_subject": "BadSubjectError",
            "too_large": "MaxPayloadError",
            "not_connected": """ConnectionClosedError ConnectionDrainingError ConnectionReconnectingError
                NoServersError OutboundBufferLimitError ProtocolError StaleConnectionError
                UnexpectedEOF JsonParseError Error""",
            "timeout": "TimeoutError FlushTimeoutError DrainTimeoutError SlowConsumerError",
            "auth": "AuthorizationError InvalidUserCredentialsError",
            "tls": "SecureConnFailedError SecureConnRequiredError SecureConnWantedError",
            "bad_config": "BadSubscriptionError BadTimeoutError InvalidCallbackTypeError ServerNotInPoolError",
            "no_jetstream": "NoRespondersError",
            "rejected": "MsgAlreadyAckdError NotJSMessageError",
        },
        "nats.js.errors": {
            # The last ones are of parts of the client that are not used here: key-value, object store.
            "unavailable": "ServiceUnavailableError",
            "no_stream": "NoStreamResponseError NotFoundError",
            "rejected": """BadRequestError ServerError APIError Error BadBucketError BadObjectMetaError
                BucketNotFoundError ConsumerInvalidResetError ConsumerSequenceMismatchError
                DigestMismatchError FetchTimeoutError InvalidBucketNameError InvalidKeyError
                InvalidObjectNameError KeyDeletedError KeyHistoryTooLargeError KeyNotFoundError
                KeyValueError KeyValueLimitMarkerTTLNotSupportedError KeyWrongLastSequenceError
                LinkIsABucketError NoKeysError ObjectAlreadyExists ObjectDeletedError
                ObjectNotFoundError""",
            "timeout": "TooManyStalledMsgsError",
        },
        "nkeys": {"auth": "NkeysError"},
        "binascii": {"auth": "Error"},  # a seed that is not base32
        "ssl": {"tls": "SSLCertVerificationError"},
    },
    answers={
        # `err_code` of an answer: server/errors.json of nats-server.
        10054: "too_large",  # message size exceeds maximum allowed
        10097: "too_large",  # header size exceeds maximum allowed of 64k
        10002: "limits",  # resource limits exceeded for account
        10023: "limits",  # insufficient resources
        10047: "limits",  # insufficient storage resources available
        10077: "stream_full",  # the store refused: maximum messages or bytes exceeded
        10060: "wrong_stream",  # expected stream does not match
        10070: "out_of_order",  # wrong last msg ID
        10109: "rejected",  # invalid operation on sealed stream
        10008: "unavailable",  # JetStream system temporarily unavailable
        10009: "unavailable",  # JetStream cluster can not handle request
        10039: "no_jetstream",  # JetStream not enabled for account
        10076: "no_jetstream",  # JetStream not enabled
        10059: "no_stream",  # stream not found
        10052: "bad_config",  # invalid stream configuration
        10058: "bad_config",  # stream name already in use with a different configuration
        10065: "bad_config",  # subjects overlap with an existing stream
        10013: "bad_config",  # consumer name already in use
        10026: "bad_config",  # maximum consumers limit reached
        10093: "bad_config",  # consumer filter subject is not a valid subset of the interest subjects
        10099: "bad_config",  # multiple non-filtered consumers not allowed on workqueue stream
        10100: "bad_config",  # filtered consumer not unique on workqueue stream
        10101: "bad_config",  # consumer must be deliver all on workqueue stream
        10121: "bad_config",  # consumer max ack pending exceeds system limit
        10148: "bad_config",  # consumer already exists
        10074: "bad_config",  # replicas > 1 not supported in non-clustered mode
    },
    words={
        # Words of an `-ERR` line, which the client raises as a plain Error with the line as text.
        "authorization violation": "auth",
        "authentication expired": "auth",
        "authentication revoked": "auth",
        "permissions violation": "forbidden",
        "secure connection": "tls",
        "connect url": "bad_config",
        "mixing of websocket": "bad_config",
    },
    permanent={"too_large", "bad_subject", "bad_header"},
    needs_operator={"auth", "forbidden", "tls", "bad_config", "no_jetstream", "no_stream"},
    answers_of=lambda error: (getattr(error, "err_code", None),),
)
