"""What `@job` makes of a function."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Generic, Literal, ParamSpec, Self, TypeVar, Unpack, cast

from relay.jobs import middleware
from relay.jobs.arguments import Arguments
from relay.jobs.backoff import Backoff, pause_seconds
from relay.jobs.context import Running, current, enter, leave, made
from relay.jobs.cron import Missed, check
from relay.jobs.errors import BadArguments, BadOptions, HandlerError
from relay.jobs.options import JobOptions, are_fixed, checked, columns, of_template
from relay.jobs.sending import Columns, NewJob, send, send_async, send_many, send_many_async
from relay.jobs.templates import Template, template_of

Called = ParamSpec("Called")
"""How the function is called."""
Enqueued = ParamSpec("Enqueued")
"""The same, without the context."""
R_co = TypeVar("R_co", covariant=True)

_DEFAULTS: JobOptions = {"queue": "default"}
"""The others are those of `tide.job_enqueue`."""


class Job(Generic[Called, Enqueued, R_co]):
    """A function that runs as a job, and is called as before.

    `enqueue(connection, ...)` takes the arguments of the function, without its context. It returns the UUID of the
    job, or of that which has its key already.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        options: Mapping[str, Any],
        *,
        backoff: Backoff | None = None,
        dead_on: tuple[type[BaseException], ...] = (),
        isolation: Literal["process"] | None = None,
        cron: str | None = None,
        time_zone: str = "UTC",
        missed: Missed = "one",
        key: Callable[..., str] | None = None,
        run_key: Callable[..., str] | str | None = None,
    ) -> None:
        if not (inspect.isfunction(function) or inspect.ismethod(function)):
            raise HandlerError(f"@job needs a function, and {function!r} is not one")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise HandlerError(f"job {name!r}: its handler has a `yield`, and so would do nothing when it is called")
        if not 1 <= len(name) <= 200:
            raise HandlerError(f"the name of a job has 1 to 200 characters: {name!r}")
        self.function = function
        self.name = name
        fixed_key = run_key if isinstance(run_key, str) else None
        self.options = _DEFAULTS | checked({**options, "run_key": fixed_key}, f"job {name!r}")
        """Those of the handler, or of this copy of it."""
        self.backoff = backoff
        self.dead_on = dead_on
        """Exceptions after which the job is dead at once."""
        self.isolation = isolation
        if cron is not None:
            _check_cron(name, cron, time_zone)
        self.cron = cron
        """When it is enqueued, without arguments: workers declare it, see `relay.jobs.schedules`."""
        self.time_zone = time_zone
        self.missed = missed
        self.arguments = Arguments(name, function)
        self.is_coroutine = inspect.iscoroutinefunction(function)
        self._key = None if key is None else _Derived(key, "key", self.arguments)
        self._run_key = _Derived(run_key, "run_key", self.arguments) if callable(run_key) else None
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<job {self.name!r} of {self.place}>"

    def __call__(self, *args: Called.args, **kwargs: Called.kwargs) -> R_co:
        result: R_co = self.function(*args, **kwargs)
        return result

    @property
    def place(self) -> str:
        """Where its function is."""
        code = self.function.__code__
        return f"{self.__module__}.{self.__qualname__} ({code.co_filename}:{code.co_firstlineno})"

    def check(self) -> None:
        """Whether it can be a handler at all. Raises HandlerError."""
        self.arguments.check()
        if self.cron is not None:
            try:
                self.arguments.bind((), {})
            except BadArguments as error:
                text = f"job {self.name!r} has a cron expression, so it must need no arguments: {error}"
                raise HandlerError(text) from None

    # Enqueuing ---------------------------------------------------------------------------------------------------

    def with_options(self, **options: Unpack[JobOptions]) -> Self:
        """A copy whose jobs have these options, too: `send.with_options(delay=60).enqueue(connection, 42)`."""
        copy: Self = object.__new__(type(self))
        copy.__dict__ |= self.__dict__
        copy.options = checked({**self.options, **_given(options)}, f"job {self.name!r}")
        copy.__dict__.pop("_fixed", None)
        return copy

    def enqueue(self, connection: Any, /, *args: Enqueued.args, **kwargs: Enqueued.kwargs) -> str:
        return send(connection, self.new_job(args, kwargs))

    async def enqueue_async(self, connection: Any, /, *args: Enqueued.args, **kwargs: Enqueued.kwargs) -> str:
        return await send_async(connection, self.new_job(args, kwargs))

    def enqueue_many(self, connection: Any, arguments: Iterable[Mapping[str, Any]]) -> list[str]:
        """A job for each mapping of arguments, in one statement. Returns their UUIDs, in the same order."""
        return send_many(connection, self._new_jobs(arguments))

    async def enqueue_many_async(self, connection: Any, arguments: Iterable[Mapping[str, Any]]) -> list[str]:
        return await send_many_async(connection, self._new_jobs(arguments))

    def template(self, /, *args: Enqueued.args, **kwargs: Enqueued.kwargs) -> Template:
        """Such a job, to follow another one or to end a batch: `first.with_options(then=send.template(42))`.

        Raises BadArguments, and BadOptions for an option, or a key of the handler, that such a job cannot have.
        """
        what = f"job {self.name!r}"
        if self._key is not None:
            raise BadOptions(
                f"{what}: a template has no key, as its handler has: enqueue it in the handler of the job before it"
            )
        options, delay = of_template(self.options, what)
        job = self._new_job(self.arguments.bind(args, kwargs), columns(cast(JobOptions, options), what))
        return template_of(job, delay, what)

    def new_job(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NewJob:
        """What would be sent. Raises BadArguments."""
        return self._new_job(self.arguments.bind(args, kwargs), self._columns())

    def _new_jobs(self, arguments: Iterable[Mapping[str, Any]]) -> list[NewJob]:
        if single := self.options.keys() & {"idempotency_key", "dedupe_key"}:
            raise BadOptions(f"job {self.name!r}: {', '.join(sorted(single))} cannot be that of several jobs")
        shared = self._columns()
        return [self._new_job(self.arguments.bind((), each), shared) for each in arguments]

    def _columns(self) -> Columns:
        if current() is not None or self._fixed is None:
            return columns(self.options, f"job {self.name!r}")
        return self._fixed

    @cached_property
    def _fixed(self) -> Columns | None:
        return columns(self.options, f"job {self.name!r}") if are_fixed(self.options) else None

    def _new_job(self, values: dict[str, Any], shared: Columns) -> NewJob:
        """`shared` are the options of all jobs like it; those that are made of its arguments come on top."""
        for option, derived in (("idempotency_key", self._key), ("run_key", self._run_key)):
            if derived is not None and option not in self.options:
                checked({option: (value := derived.of(values))}, f"job {self.name!r}")
                shared = {**shared, option: ("text", value)}
        return NewJob(self.options["queue"] or "", "python", self.name, self.arguments.to_json(values), shared)

    # Running -----------------------------------------------------------------------------------------------------

    def run(self, payload: str | bytes, running: Running) -> Any:
        """Runs a plain function in this thread, inside of the middleware. Raises what it raises, or BadArguments.

        `relay.jobs.results.result_text` is the result as it is kept.
        """
        values = self.arguments.from_json(payload)
        token = enter(running)
        try:
            if middleware.is_any():
                with middleware.surround(made(running)):
                    result = self.arguments.call(values, running)
            else:
                result = self.arguments.call(values, running)
        finally:
            leave(token)
        if inspect.iscoroutine(result):
            result.close()
            raise HandlerError(f"job {self.name!r}: its handler returned a coroutine; declare it with `async def`")
        return result

    async def run_async(self, payload: str | bytes, running: Running) -> Any:
        """The same for a coroutine."""
        values = self.arguments.from_json(payload)
        token = enter(running)
        try:
            if middleware.is_any():
                async with middleware.surround_async(made(running)):
                    return await self.arguments.call(values, running)
            return await self.arguments.call(values, running)
        finally:
            leave(token)

    def pause_seconds(self, attempt: int, own: Backoff | None = None) -> float:
        """Until the next attempt, after this one failed; `own` is the backoff of the job itself, of its options."""
        return pause_seconds(attempt, self.backoff if own is None else own)


def _check_cron(name: str, cron: str, time_zone: str) -> None:
    try:
        check(cron, time_zone)
    except BadOptions as error:
        raise BadOptions(f"job {name!r}: cron: {error}") from None


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


class _Derived:
    """A key that is made of arguments: a function of any of them, by their names."""

    def __init__(self, function: Callable[..., str], option: str, arguments: Arguments) -> None:
        self._function = function
        self._names = list(inspect.signature(function).parameters)
        if unknown := set(self._names) - set(arguments.names):
            raise HandlerError(f"{option} of the job takes {sorted(unknown)}, which its handler does not")
        self._arguments = arguments

    def of(self, values: Mapping[str, Any]) -> str:
        given = self._arguments.with_defaults(values)
        return self._function(**{name: given[name] for name in self._names if name in given})


AnyJob = Job[Any, Any, Any]
