"""`/v1/queues`: list, create, change, pause, resume and drop them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from relay.operations import job_queues as operations
from relay.operations.base import Connection
from relay.operations.job_errors import NoSuchJob
from relay.web.admin.models import QueueBody, QueueSettings
from relay.web.admin.request_session import Session

router = APIRouter(prefix="/queues", tags=["queues"])

Name = Annotated[str, Path(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]{0,94}$")]


@router.get("")
def list_queues(connection: Session) -> list[QueueBody]:
    """Every queue with its settings."""
    return [QueueBody.of(queue) for queue in operations.list_queues(connection)]


@router.get("/{queue_name}")
def read_queue(queue_name: Name, connection: Session) -> QueueBody:
    """A queue with its settings."""
    return _body(connection, queue_name)


@router.put("/{queue_name}", responses={201: {"model": QueueBody, "description": "It was created."}})
def put_queue(
    queue_name: Name, connection: Session, response: Response, settings: QueueSettings | None = None
) -> QueueBody:
    """Creates a queue, or changes settings of it. What is left out stays as it is; null takes a limit away."""
    given = settings.model_dump(exclude_unset=True) if settings else {}
    paused = given.pop("paused", None)
    try:
        operations.show(connection, queue_name)
        if given:
            operations.change(connection, queue_name, given)
    except NoSuchJob:
        operations.create(connection, queue_name, given)
        response.status_code = 201
    if paused is not None:
        (operations.pause if paused else operations.resume)(connection, queue_name)
    return _body(connection, queue_name)


@router.post("/{queue_name}/pause")
def pause_queue(queue_name: Name, connection: Session) -> QueueBody:
    """No job of it begins any more."""
    operations.pause(connection, queue_name)
    return _body(connection, queue_name)


@router.post("/{queue_name}/resume")
def resume_queue(queue_name: Name, connection: Session) -> QueueBody:
    """Its jobs begin again."""
    operations.resume(connection, queue_name)
    return _body(connection, queue_name)


@router.delete("/{queue_name}", status_code=204)
def drop_queue(queue_name: Name, connection: Session, force: Annotated[bool, Query()] = False) -> None:
    """Removes a queue with its jobs. 409 if jobs wait or run, unless `force`."""
    operations.drop(connection, queue_name, force=force)


def _body(connection: Connection, queue: str) -> QueueBody:
    return QueueBody.of(operations.show(connection, queue))
