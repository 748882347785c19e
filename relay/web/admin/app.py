"""The application of the admin API. Answers come after the commit of what they tell of."""

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer
from starlette.requests import Request

from relay.web import framing
from relay.web.admin import errors, jobs, queues, workers
from relay.web.admin.auth import Tokens
from relay.web.admin.bodies import BodyLimit
from relay.web.admin.sessions import Sessions

# Only says in the documentation that there are tokens; `Tokens.check` decides.
_BEARER = HTTPBearer(
    auto_error=False, description="One of RELAY_API_AUTH_TOKENS, or to read RELAY_API_READ_ONLY_AUTH_TOKENS."
)


def make_app(sessions: Sessions, tokens: Tokens) -> FastAPI:
    app = FastAPI(
        title="tide-relay",
        summary="The admin API.",
        version=version("tide-relay"),
        # Its page would load a script from elsewhere; /openapi.json stays.
        docs_url=None,
        redoc_url=None,
        responses={"4XX": {"model": errors.ErrorBody}, "5XX": {"model": errors.ErrorBody}},
    )
    app.state.sessions = sessions
    app.add_middleware(BodyLimit)
    app.add_middleware(framing.OneFraming, refusal=errors.body("bad_request", framing.MESSAGE))
    errors.install(app)
    app.include_router(_health(sessions))

    def authorized(request: Request, _bearer: Annotated[Any, Depends(_BEARER)]) -> None:
        tokens.check(request)

    for router in (jobs.router, queues.router, workers.router):
        app.include_router(router, prefix="/v1", dependencies=[Depends(authorized)])
    return app


def _health(sessions: Sessions) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    def healthz() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    @router.get("/readyz")
    def readyz() -> dict[str, str]:
        """Whether PostgreSQL answers: 503 if not."""
        with sessions.session() as connection:
            connection.execute("select 1")
        return {"status": "ready", "database": "ok"}

    return router
