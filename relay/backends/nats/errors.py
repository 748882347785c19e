"""What an error of NATS means: one table each for the client's exceptions, JetStream's error codes, and `-ERR` lines.

Each answer is (permanent, code). Permanent: this record will never be accepted and becomes a dead letter.
Everything else is sent again; where trying again cannot help until a person acts, the code is in
`NEEDS_OPERATOR`, and `open` then raises ConfigError. Unknown errors count as temporary: a blocked pipeline can be
seen and mended, a message thrown away by mistake cannot.
"""

NEEDS_OPERATOR = frozenset({"auth", "forbidden", "tls", "bad_config", "no_jetstream", "no_stream"})

CLIENT_ERRORS: dict[str, tuple[bool, str]] = {
    # The record's own fault, found before it is sent.
    "nats.errors.BadHeaderError": (True, "bad_header"),
    "nats.errors.BadSubjectError": (True, "bad_subject"),
    "nats.errors.MaxPayloadError": (True, "too_large"),
    # The connection.
    "nats.errors.ConnectionClosedError": (False, "not_connected"),
    "nats.errors.ConnectionDrainingError": (False, "not_connected"),
    "nats.errors.ConnectionReconnectingError": (False, "not_connected"),
    "nats.errors.NoServersError": (False, "not_connected"),
    "nats.errors.OutboundBufferLimitError": (False, "not_connected"),
    "nats.errors.ProtocolError": (False, "not_connected"),
    "nats.errors.StaleConnectionError": (False, "not_connected"),
    "nats.errors.UnexpectedEOF": (False, "not_connected"),
    "nats.errors.JsonParseError": (False, "not_connected"),
    "nats.errors.Error": (False, "not_connected"),
    "nats.errors.TimeoutError": (False, "timeout"),
    "nats.errors.FlushTimeoutError": (False, "timeout"),
    "nats.errors.DrainTimeoutError": (False, "timeout"),
    "nats.errors.SlowConsumerError": (False, "timeout"),
    # Who we are, and how we were configured.
    "nats.errors.AuthorizationError": (False, "auth"),
    "nats.errors.InvalidUserCredentialsError": (False, "auth"),
    "nkeys.NkeysError": (False, "auth"),
    "binascii.Error": (False, "auth"),  # a seed that is not base32
    "nats.errors.SecureConnFailedError": (False, "tls"),
    "nats.errors.SecureConnRequiredError": (False, "tls"),
    "nats.errors.SecureConnWantedError": (False, "tls"),
    "ssl.SSLCertVerificationError": (False, "tls"),
    "nats.errors.BadSubscriptionError": (False, "bad_config"),
    "nats.errors.BadTimeoutError": (False, "bad_config"),
    "nats.errors.InvalidCallbackTypeError": (False, "bad_config"),
    "nats.errors.ServerNotInPoolError": (False, "bad_config"),
    # JetStream.
    "nats.errors.NoRespondersError": (False, "no_jetstream"),
    "nats.js.errors.ServiceUnavailableError": (False, "unavailable"),
    "nats.js.errors.NoStreamResponseError": (False, "no_stream"),
    "nats.js.errors.NotFoundError": (False, "no_stream"),
    "nats.js.errors.BadRequestError": (False, "rejected"),
    "nats.js.errors.ServerError": (False, "rejected"),
    "nats.js.errors.APIError": (False, "rejected"),
    "nats.js.errors.Error": (False, "rejected"),
    "nats.js.errors.TooManyStalledMsgsError": (False, "timeout"),
    # The rest of the client, which this sink does not use: key-value, object store, consumers.
    **{
        f"nats.{name}": (False, "rejected")
        for name in (
            "errors.MsgAlreadyAckdError",
            "errors.NotJSMessageError",
            "js.errors.BadBucketError",
            "js.errors.BadObjectMetaError",
            "js.errors.BucketNotFoundError",
            "js.errors.ConsumerInvalidResetError",
            "js.errors.ConsumerSequenceMismatchError",
            "js.errors.DigestMismatchError",
            "js.errors.FetchTimeoutError",
            "js.errors.InvalidBucketNameError",
            "js.errors.InvalidKeyError",
            "js.errors.InvalidObjectNameError",
            "js.errors.KeyDeletedError",
            "js.errors.KeyHistoryTooLargeError",
            "js.errors.KeyNotFoundError",
            "js.errors.KeyValueError",
            "js.errors.KeyValueLimitMarkerTTLNotSupportedError",
            "js.errors.KeyWrongLastSequenceError",
            "js.errors.LinkIsABucketError",
            "js.errors.NoKeysError",
            "js.errors.ObjectAlreadyExists",
            "js.errors.ObjectDeletedError",
            "js.errors.ObjectNotFoundError",
        )
    },
}

JETSTREAM_CODES: dict[int, tuple[bool, str]] = {
    # `err_code` of an answer: server/errors.json of nats-server.
    10054: (True, "too_large"),  # message size exceeds maximum allowed
    10097: (True, "too_large"),  # header size exceeds maximum allowed of 64k
    10002: (False, "limits"),  # resource limits exceeded for account
    10023: (False, "limits"),  # insufficient resources
    10047: (False, "limits"),  # insufficient storage resources available
    10077: (False, "stream_full"),  # the store refused: maximum messages or bytes exceeded
    10060: (False, "wrong_stream"),  # expected stream does not match
    10070: (False, "out_of_order"),  # wrong last msg ID
    10109: (False, "rejected"),  # invalid operation on sealed stream
    10008: (False, "unavailable"),  # JetStream system temporarily unavailable
    10009: (False, "unavailable"),  # JetStream cluster can not handle request
    10039: (False, "no_jetstream"),  # JetStream not enabled for account
    10076: (False, "no_jetstream"),  # JetStream not enabled
    10059: (False, "no_stream"),  # stream not found
    10052: (False, "bad_config"),  # invalid stream configuration
    10058: (False, "bad_config"),  # stream name already in use with a different configuration
    10065: (False, "bad_config"),  # subjects overlap with an existing stream
    10013: (False, "bad_config"),  # consumer name already in use
    10026: (False, "bad_config"),  # maximum consumers limit reached
    10093: (False, "bad_config"),  # consumer filter subject is not a valid subset of the interest subjects
    10099: (False, "bad_config"),  # multiple non-filtered consumers not allowed on workqueue stream
    10100: (False, "bad_config"),  # filtered consumer not unique on workqueue stream
    10101: (False, "bad_config"),  # consumer must be deliver all on workqueue stream
    10121: (False, "bad_config"),  # consumer max ack pending exceeds system limit
    10148: (False, "bad_config"),  # consumer already exists
    10074: (False, "bad_config"),  # replicas > 1 not supported in non-clustered mode
}

PROTOCOL_ERRORS: tuple[tuple[str, tuple[bool, str]], ...] = (
    # Words of an `-ERR` line, which the client raises as a plain Error with the line as text.
    ("authorization violation", (False, "auth")),
    ("authentication expired", (False, "auth")),
    ("authentication revoked", (False, "auth")),
    ("permissions violation", (False, "forbidden")),
    ("secure connection", (False, "tls")),
    ("connect url", (False, "bad_config")),
    ("mixing of websocket", (False, "bad_config")),
)


def verdict(error: BaseException) -> tuple[bool, str]:
    """(permanent, code) of anything that the client raised."""
    number = getattr(error, "err_code", None)
    if number in JETSTREAM_CODES:
        return JETSTREAM_CODES[number]
    text = str(error).lower()
    for words, answer in PROTOCOL_ERRORS:
        if words in text:
            return answer
    for kind in type(error).__mro__:
        answer_of_class = CLIENT_ERRORS.get(f"{kind.__module__}.{kind.__qualname__}")
        if answer_of_class:
            return answer_of_class
    return (False, "timeout" if isinstance(error, TimeoutError) else "not_connected")
