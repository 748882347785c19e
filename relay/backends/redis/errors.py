"""What an error of Redis means: the client's exceptions, and the words with which the server's answers begin."""

from relay.backends.common.error_table import ErrorTable

# From src/t_stream.c and src/server.c of Redis.
_BEGINNINGS = {
    "oom ": "out_of_memory",
    "readonly ": "read_only",
    "loading ": "loading",
    "misconf ": "unavailable",
    "masterdown ": "unavailable",
    "busy ": "unavailable",
    "noreplicas ": "not_replicated",
    "clusterdown ": "cluster_down",
    "moved ": "moved",
    "noperm ": "forbidden",
    "noauth ": "auth",
    "wrongtype ": "wrong_type",
    "nogroup ": "no_group",
    "unblocked force": "read_only",  # the primary has become a replica
    "unblocked ": "no_group",
    "the id specified in xadd": "id_passed",
    "the stream has exhausted": "id_passed",
    "elements are too large": "too_large",
    "the xgroup subcommand requires the key to exist": "no_stream",
    "db index is out of range": "bad_config",
    "invalid db index": "bad_config",
    "select is not allowed in cluster mode": "bad_config",
    "this instance has cluster support disabled": "bad_config",
    "unknown command": "bad_config",
}
# A refused transaction says what it was refused for, and so does a script, before Redis 7.
_BEFORE = (
    r"^(?:transaction discarded because of: )?(?:err )?(?:error running script \([^)]*\): @user_script:\s*\d+: -?)?"
)

ERRORS = ErrorTable(
    exceptions={
        "redis.exceptions": {
            # The last ones are of parts of the client that are not used here.
            "not_connected": "ConnectionError MaxConnectionsError InvalidResponse RedisError",
            "timeout": "TimeoutError",
            "auth": """AuthenticationError AuthenticationWrongNumberOfArgsError AuthorizationError
                ExternalAuthProviderError""",
            "forbidden": "NoPermissionError",
            "bad_config": "DataError",
            "loading": "BusyLoadingError",
            "out_of_memory": "OutOfMemoryError",
            "read_only": "ReadOnlyError",
            "unavailable": "MasterDownError",
            "cluster_down": "ClusterDownError ClusterError SlotNotCoveredError",
            "moved": "AskError MovedError TryAgainError",
            "rejected": """ResponseError ExecAbortError ChildDeadlockedError ClusterCrossSlotError
                CrossSlotTransactionError IncorrectPolicyType InvalidPipelineStack LockError
                LockNotOwnedError ModuleError NoScriptError NoSuchFieldsetError PubSubError
                RedisClusterException WatchError""",
        },
    },
    words={_BEFORE + beginning: code for beginning, code in _BEGINNINGS.items()}
    | {r"certificate.verify.failed|wrong_version_number|\[ssl: tlsv": "tls"},
    permanent={"too_large"},
    needs_operator={"auth", "forbidden", "tls", "bad_config", "wrong_type", "no_stream"},
    advice={
        "auth": "name the user and the password that it asks for in the keys username and password, or in url",
        "forbidden": "let its ACL permit this command and key to the user of this pipeline",
        "tls": "name the authority that signed its certificate in tls_ca, or correct url (rediss://)",
    },
)
