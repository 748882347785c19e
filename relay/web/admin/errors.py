"""One shape of errors: `{"error": {"code", "message", "details"}}`. Messages are sentences, never tracebacks."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relay.errors import MigrationError, NotConnected, RelayError
from relay.operations.job_errors import KeyInUse, NoSuchJob, NotPossible
from relay.process.unforeseen import log_bug

_KINDS: dict[type[RelayError], int] = {NoSuchJob: 404, NotPossible: 409, KeyInUse: 409}
# What PostgreSQL says of a call (docs/reference/sql.md), for the rest.
_STATUS = {"54000": 413, "42501": 403}
_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    422: "validation_error",
    500: "internal",
    503: "database_unavailable",
}
RETRY_SECONDS = 5


class Problem(Exception):
    """What a caller is told instead of an answer."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, error: RelayError, what: str = "") -> "Problem":
        """`what` is the kind of thing that was asked for: it names what is not found, or in which state it is."""
        if isinstance(error, NotConnected | MigrationError):
            return cls(503, _CODES[503], str(error), {"Retry-After": str(RETRY_SECONDS)})
        kinds = (status for kind, status in _KINDS.items() if isinstance(error, kind))
        status = next(kinds, None) or _STATUS.get(_sqlstate(error), 422)
        code = {404: f"{what}_not_found", 409: f"{what}_state_conflict"}.get(status) if what else None
        return cls(status, code or _CODES[status], str(error))


def install(app: FastAPI) -> None:
    """Has the application answer every error in that shape."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RelayError, _relay_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


def body(code: str, message: str, details: Any = None) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "details": details}}


def answer(
    status: int, code: str, message: str, details: Any = None, headers: Mapping[str, str] | None = None
) -> Response:
    return JSONResponse(body(code, message, details), status, dict(headers or {}))


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return answer(error.status, error.code, error.message, headers=error.headers)


async def _relay_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RelayError)
    kind = request.url.path.split("/")[2:3]
    problem = Problem.of(
        error, {"jobs": "job", "queues": "queue", "schedules": "schedule"}.get(kind[0] if kind else "", "")
    )
    return await _problem(request, problem)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Without the input: it may hold what the caller does not want to see in a log.
    problems = [{"loc": list(each["loc"]), "msg": each["msg"], "type": each["type"]} for each in error.errors()]
    message = "The request is not valid."
    if any(each["loc"] == ["body"] for each in problems) and not _is_json(request.headers.get("content-type", "")):
        message = "Send the body as JSON, with the header Content-Type: application/json."
    return answer(422, "validation_error", message, {"errors": problems})


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer(
        error.status_code, _CODES.get(error.status_code, "http_error"), str(error.detail), headers=error.headers
    )


async def _unforeseen(request: Request, error: Exception) -> Response:
    log_bug("bug in the admin API", error, method=request.method, path=request.url.path)
    return answer(500, "internal", "The request failed for a reason that no one foresaw. The log has the traceback.")


def _sqlstate(error: BaseException | None) -> str:
    while error is not None:
        if found := getattr(error, "sqlstate", None):
            return str(found)
        error = error.__cause__
    return ""


class ErrorDetail(BaseModel):
    code: str
    message: str
    details: dict[str, Any] | None = None


class ErrorBody(BaseModel):
    error: ErrorDetail
