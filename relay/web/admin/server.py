"""The address of the admin API: its own, because the public one faces the open internet."""

import contextlib
import threading
from collections.abc import Sequence

import structlog

from relay.process.stop import Stop
from relay.setting_values import parse_address
from relay.settings import Settings
from relay.web.admin.app import make_app
from relay.web.admin.auth import Tokens
from relay.web.admin.sessions import Sessions
from relay.web.listening import listen, serve

log = structlog.get_logger(__name__)

CONNECTIONS = 256
GRACE_SECONDS = 10.0


class Admin:
    """Opens what the admin API needs."""

    @staticmethod
    def open(settings: Settings, stop: Stop, stack: contextlib.ExitStack) -> Sequence[threading.Thread]:
        """The thread that serves it, not started; none without tokens. What it needs is closed with the stack.

        Raises OSError if the address cannot be bound.
        """
        tokens = Tokens(settings.api_auth_tokens, settings.api_read_only_auth_tokens)
        if not tokens:
            log.info("the admin API is not served: it has no tokens (RELAY_API_AUTH_TOKENS)")
            return ()
        listening = stack.enter_context(listen(parse_address(settings.admin_addr)))
        sessions = Sessions(settings)
        stack.callback(sessions.close)
        host, port = listening.getsockname()[:2]
        log.info("admin API", host=host, port=port)
        app = make_app(sessions, tokens)
        return [
            threading.Thread(
                target=serve, args=(app, listening, stop, CONNECTIONS, GRACE_SECONDS), name="admin", daemon=True
            )
        ]
