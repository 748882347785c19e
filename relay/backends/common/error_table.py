"""What the errors of a client library and the answers of its server mean: one table for each system.

Each error has a code, a short stable word. A code in `permanent` blames the record: it will never be accepted, and
becomes a dead letter. Everything else is retried. A code in `needs_operator` stays until someone changes something:
`open` then raises ConfigError. An unknown error counts as temporary: a stopped pipeline can be seen and
fixed, a message that was thrown away by mistake cannot.
"""

import inspect
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from relay.errors import ConfigError, NotConnected, RelayError
from relay.masking import MOST_CHARACTERS, mask


class Verdict(NamedTuple):
    permanent: bool
    code: str


def _nothing(_error: Any) -> Iterable[Hashable]:
    return ()


class ErrorTable:
    """Read-only once made, so threads may share it. Imports no client library."""

    def __init__(
        self,
        *,
        exceptions: Mapping[str, Mapping[str, str]] | None = None,
        answers: Mapping[Hashable, str] | None = None,
        words: Mapping[str, str] | None = None,
        permanent: Iterable[str] = (),
        needs_operator: Iterable[str] = (),
        unknown: str = "not_connected",
        advice: Mapping[str, str] | None = None,
        answers_of: Callable[[Any], Iterable[Hashable]] = _nothing,
        text_of: Callable[[Any], str] = str,
    ) -> None:
        """`exceptions`: module -> code -> names of its classes, separated by spaces; the nearest base class counts.

        `answers`: what the server answered -> code; `answers_of` takes the answers out of an error, the telling one
        first. `words`: regular expression -> code, searched for in the lower case of `text_of(error)`, the text for
        people. Words are looked at first, then answers, then exceptions. `advice`: code -> what an operator has to do
        about it, where the text does not say.
        """
        self.exceptions = {
            f"{module}.{name}": code
            for module, codes in (exceptions or {}).items()
            for code, names in codes.items()
            for name in names.split()
        }
        self.answers = dict(answers or {})
        self.words = {re.compile(pattern): code for pattern, code in (words or {}).items()}
        self.permanent = frozenset(permanent)
        self.needs_operator = frozenset(needs_operator)
        self.codes = frozenset((*self.exceptions.values(), *self.answers.values(), *self.words.values()))
        """Every code that it can give, except `timeout` and `unknown`."""
        self._unknown = unknown
        self._advice = {code: f"; {text}" for code, text in (advice or {}).items()}
        self._answers_of = answers_of
        self._text_of = text_of
        assert not self.permanent & self.needs_operator, "no operator is needed for what a record does wrong"

    def verdict(self, error: Any) -> Verdict:
        """Of anything that the client raised or reported."""
        return self.judge(self._text_of(error), self._answers_of(error)) or self._by_class(error)

    def judge(self, text: str, answers: Iterable[Hashable] = ()) -> Verdict | None:
        """Of an answer that the client did not raise; None for one that is not in the table."""
        text = text[:MOST_CHARACTERS].lower()
        for pattern, code in self.words.items():
            if pattern.search(text):
                return self._verdict(code)
        return next((self._verdict(self.answers[answer]) for answer in answers if answer in self.answers), None)

    def translated(self, error: Any, where: str, *, opening: bool = False, reason: str | None = None) -> RelayError:
        """The error to raise instead, without secrets in its text: ConfigError only while opening."""
        permanent, code = self.verdict(error)
        if opening and (permanent or code in self.needs_operator):
            advice = "" if reason else self._advice.get(code, "")
            return ConfigError(self._text(error, where, reason) + advice)
        return self.lost(error, where, reason=reason)

    def lost(self, error: Any, where: str, *, reason: str | None = None) -> NotConnected:
        """The error to raise instead, when it is not opening."""
        return NotConnected(self._text(error, where, reason), code=self.verdict(error).code)

    def differences(self, module: ModuleType) -> set[str]:
        """For a test: exceptions of the module that the table lacks, and names in the table that it does not have."""
        theirs = {
            f"{module.__name__}.{name}"
            for name, kind in vars(module).items()
            if inspect.isclass(kind) and issubclass(kind, Exception) and not issubclass(kind, Warning)
            if kind.__module__ == module.__name__
        }
        return theirs ^ {name for name in self.exceptions if name.rpartition(".")[0] == module.__name__}

    def _by_class(self, error: Any) -> Verdict:
        for kind in type(error).__mro__:
            code = self.exceptions.get(f"{kind.__module__}.{kind.__qualname__}")
            if code is not None:
                return self._verdict(code)
        return Verdict(False, "timeout" if isinstance(error, TimeoutError) else self._unknown)

    def _text(self, error: Any, where: str, reason: str | None) -> str:
        return mask(f"{where}: {reason or self._text_of(error) or type(error).__name__}")

    def _verdict(self, code: str) -> Verdict:
        return Verdict(code in self.permanent, code)
