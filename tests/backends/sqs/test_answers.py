"""What SQS answers for single messages of a request. moto never refuses one of several, so it is played here."""

from collections import deque
from typing import Any

import pytest

from relay.backends.sqs.queue import Queue
from relay.backends.sqs.sink import Outgoing, Sending
from relay.backends.sqs.source import _delete
from relay.errors import NotConnected
from relay.models import Failure


class Played(Queue):
    """Gives the answers, one for each request."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = deque(answers)
        self.requests: list[list[str]] = []

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        self.requests.append([entry["Id"] for entry in parameters["Entries"]])
        return self.answers.popleft()


def refused(position: int, code: str) -> dict[str, Any]:
    return {"Id": str(position), "SenderFault": True, "Code": code, "Message": "no"}


def taken(*positions: int) -> list[dict[str, Any]]:
    return [{"Id": str(position), "MessageId": "m"} for position in positions]


def send(queue: Played, *requests: list[int]) -> list[Failure]:
    sending = Sending(queue, sum(map(len, requests)))
    sending.waiting = {position for request in requests for position in request}
    sending.run(deque([Outgoing(position, {"Id": str(position)}, 1) for position in request] for request in requests))
    return sending.end(100).result()


class TestMessagesOfARequest:
    def test_one_that_is_wrong_is_refused_for_good_and_its_neighbours_are_delivered(self) -> None:
        queue = Played({"Failed": [refused(1, "InvalidMessageContents")], "Successful": taken(0, 2)})
        assert send(queue, [0, 1, 2]) == [Failure(1, True, "bad_message", "no (InvalidMessageContents)")]

    @pytest.mark.parametrize(
        ("code", "meaning"),
        [
            ("RequestThrottled", "throttled"),
            ("AWS.SimpleQueueService.KMS.ThrottlingException", "throttled"),
            ("KmsAccessDenied", "kms"),
            ("Unheard", "rejected"),
        ],
    )
    def test_one_that_is_refused_for_now_ends_the_sending(self, code: str, meaning: str) -> None:
        queue = Played({"Failed": [refused(1, code)], "Successful": taken(0)})
        failures = send(queue, [0, 1], [2, 3])
        assert [(f.index, f.permanent, f.code) for f in failures] == [
            (1, False, meaning),
            (2, False, "not_sent"),
            (3, False, "not_sent"),
        ]
        assert queue.requests == [["0", "1"]]

    def test_after_one_that_is_refused_for_good_the_sending_goes_on(self) -> None:
        queue = Played({"Failed": [refused(0, "InvalidMessageContents")]}, {"Successful": taken(1)})
        assert [(f.index, f.permanent) for f in send(queue, [0], [1])] == [(0, True)]

    def test_one_without_an_answer_was_not_delivered(self) -> None:
        assert [(f.index, f.code) for f in send(Played({"Successful": taken(0)}), [0, 1])] == [(1, "timeout")]


class TestDeleting:
    @pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "InvalidParameterValue"])
    def test_a_handle_that_is_no_longer_good_is_no_failure(self, code: str) -> None:
        _delete(Played({"Failed": [refused(0, code)]}), "here", ["handle"])

    @pytest.mark.parametrize(
        ("code", "meaning"),
        [("RequestThrottled", "throttled"), ("InternalError", "unavailable"), ("Unheard", "rejected")],
    )
    def test_anything_else_is(self, code: str, meaning: str) -> None:
        with pytest.raises(NotConnected, match="here: not deleted") as caught:
            _delete(Played({"Failed": [refused(0, code)]}), "here", ["handle"])
        assert caught.value.code == meaning
