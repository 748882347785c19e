"""What an error of Redis means: a table for the client's exceptions, and one for the words of the server's answers.

Each answer is (permanent, code). Permanent: this record will never be accepted and becomes a dead letter.
Everything else is tried again; where trying again cannot help until a person acts, the code is in `NEEDS_OPERATOR`, and
`open` then raises ConfigError. Unknown errors count as temporary: a blocked pipeline can be seen and mended, a message
thrown away by mistake cannot.
"""

NEEDS_OPERATOR = frozenset({"auth", "forbidden", "tls", "bad_config", "wrong_type", "no_stream"})

CLIENT_ERRORS: dict[str, tuple[bool, str]] = {
    # The connection.
    "ConnectionError": (False, "not_connected"),
    "MaxConnectionsError": (False, "not_connected"),
    "InvalidResponse": (False, "not_connected"),
    "RedisError": (False, "not_connected"),
    "TimeoutError": (False, "timeout"),
    # Who we are, and how we were configured.
    "AuthenticationError": (False, "auth"),
    "AuthenticationWrongNumberOfArgsError": (False, "auth"),
    "AuthorizationError": (False, "auth"),
    "ExternalAuthProviderError": (False, "auth"),
    "NoPermissionError": (False, "forbidden"),
    "DataError": (False, "bad_config"),
    # The server cannot now.
    "BusyLoadingError": (False, "loading"),
    "OutOfMemoryError": (False, "out_of_memory"),
    "ReadOnlyError": (False, "read_only"),
    "MasterDownError": (False, "unavailable"),
    # The cluster.
    "ClusterDownError": (False, "cluster_down"),
    "ClusterError": (False, "cluster_down"),
    "SlotNotCoveredError": (False, "cluster_down"),
    "AskError": (False, "moved"),
    "MovedError": (False, "moved"),
    "TryAgainError": (False, "moved"),
    # Any other answer.
    "ResponseError": (False, "rejected"),
    "ExecAbortError": (False, "rejected"),
    # The rest of the client, which this project does not use.
    **dict.fromkeys(
        (
            "ChildDeadlockedError",
            "ClusterCrossSlotError",
            "CrossSlotTransactionError",
            "IncorrectPolicyType",
            "InvalidPipelineStack",
            "LockError",
            "LockNotOwnedError",
            "ModuleError",
            "NoScriptError",
            "NoSuchFieldsetError",
            "PubSubError",
            "RedisClusterException",
            "WatchError",
        ),
        (False, "rejected"),
    ),
}

SERVER_WORDS: tuple[tuple[str, tuple[bool, str]], ...] = (
    # The beginning of an answer, or what a refused transaction was refused for; src/t_stream.c, src/server.c of Redis.
    ("oom ", (False, "out_of_memory")),
    ("readonly ", (False, "read_only")),
    ("loading ", (False, "loading")),
    ("misconf ", (False, "unavailable")),
    ("masterdown ", (False, "unavailable")),
    ("busy ", (False, "unavailable")),
    ("noreplicas ", (False, "not_replicated")),
    ("clusterdown ", (False, "cluster_down")),
    ("moved ", (False, "moved")),
    ("noperm ", (False, "forbidden")),
    ("noauth ", (False, "auth")),
    ("wrongtype ", (False, "wrong_type")),
    ("nogroup ", (False, "no_group")),
    ("unblocked ", (False, "no_group")),
    ("the id specified in xadd", (False, "id_passed")),
    ("the stream has exhausted", (False, "id_passed")),
    ("elements are too large", (True, "too_large")),
    ("the xgroup subcommand requires the key to exist", (False, "no_stream")),
    ("db index is out of range", (False, "bad_config")),
    ("invalid db index", (False, "bad_config")),
    ("select is not allowed in cluster mode", (False, "bad_config")),
    ("this instance has cluster support disabled", (False, "bad_config")),
    ("unknown command", (False, "bad_config")),
)

_CAUSE = "transaction discarded because of: "
_TLS = ("certificate_verify_failed", "certificate verify failed", "wrong_version_number", "[ssl: tlsv")


def verdict(error: BaseException) -> tuple[bool, str]:
    """(permanent, code) of anything that the client raised or the server answered."""
    text = str(error).lower()
    for prefix in (_CAUSE, "err "):
        text = text.partition(prefix)[2] if text.startswith(prefix) else text
    for words, answer in SERVER_WORDS:
        if text.startswith(words):
            return answer
    if any(word in text for word in _TLS):
        return (False, "tls")
    for kind in type(error).__mro__:
        answer_of_class = CLIENT_ERRORS.get(kind.__name__) if kind.__module__.startswith("redis") else None
        if answer_of_class:
            return answer_of_class
    return (False, "timeout" if isinstance(error, TimeoutError) else "not_connected")
