"""Which of the stream tables that a scheduler owns follow which others, of any owner."""

from collections.abc import Iterable

from scheduler.state import Spec


class Followers:
    """By pipelines."""

    def __init__(self) -> None:
        self._followers: dict[str, set[str]] = {}

    def __contains__(self, followed: object) -> bool:
        return followed in self._followers

    def put(self, spec: Spec) -> None:
        for followed in _followed(spec):
            self._followers.setdefault(followed, set()).add(spec.name)

    def remove(self, spec: Spec) -> None:
        """As it was put."""
        for followed in _followed(spec):
            self._followers[followed].discard(spec.name)
            if not self._followers[followed]:
                del self._followers[followed]

    def of(self, followed: Iterable[str]) -> set[str]:
        """Those that follow any of these."""
        return {name for each in followed for name in self._followers.get(each, ())}


def _followed(spec: Spec) -> set[str]:
    return {followed for each in spec.refreshes.schedules for followed in each.follows} if spec.refreshes else set()
