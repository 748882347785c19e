"""The connection to a database that a pipeline names, and nothing that libpq would add of this machine.

libpq reads a password file, a service file, variables such as PGPASSWORD, certificates and tickets of the user it runs
as. Those are the process's own. A pipeline's URL is a text of the one that sets the pipeline, and may send what libpq
finds to any server.
"""

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from relay.errors import ConfigError
from relay.reach import check_ambient, check_secret_file, in_force

_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir")
_KNOWN = frozenset({
    *_FILES, "application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname",
    "fallback_application_name", "host", "hostaddr", "keepalives", "keepalives_count", "keepalives_idle",
    "keepalives_interval", "load_balance_hosts", "max_protocol_version", "min_protocol_version", "options", "password",
    "port", "require_auth", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcertmode", "sslmode",
    "sslnegotiation", "sslpassword", "sslsni", "target_session_attrs", "tcp_user_timeout", "user",
})  # fmt: skip
_METHODS = "password,md5,scram-sha-256,none"
_NO_FILE = "/dev/null/none"
_LIBPQ_16 = 160000


def check_parameters(names: "set[str]") -> None:
    """Raises ValueError for what a pipeline may not say: files to write, programs, plugins, the machine's own files."""
    if refused := sorted(names - _KNOWN):
        raise ValueError(f"postgres_url: {', '.join(refused)} cannot be set by a pipeline; leave it out")


def bound(url: str, where: str) -> str:
    """The connection string to use. Raises ConfigError for files and credentials that are not for pipelines."""
    given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    for name in _FILES:
        if given.get(name) and (name, given[name]) != ("sslrootcert", "system"):
            try:
                check_secret_file(given[name])
            except ConfigError as error:
                raise ConfigError(f"{where}: postgres_url: {name} {given[name]!r} {error}") from None
    if in_force().ambient_credentials:
        return url
    hosts = (given.get("hostaddr") or given.get("host", "")).split(",")
    if any(host.startswith(("/", "@")) or not host for host in hosts):
        check_ambient(f"{where}: postgres_url names no host, or a socket of this machine")
    if {"gss", "sspi"} & set(given.get("require_auth", "").replace("!", "").split(",")):
        check_ambient(f"{where}: postgres_url: require_auth")
    # An empty password is one: without it, libpq would look for another.
    ours = {"password": given.get("password", ""), "passfile": _NO_FILE, "gssencmode": "disable"}
    if psycopg.pq.version() >= _LIBPQ_16:
        ours["require_auth"] = given.get("require_auth") or _METHODS
        ours["sslcertmode"] = given.get("sslcertmode", "allow") if given.get("sslcert") else "disable"
    return make_conninfo(url, **ours)
