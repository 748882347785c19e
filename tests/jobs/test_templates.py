"""What cannot be a template, or follow a job. That a template is a job as any other is in test_following.py."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from relay import jobs
from relay.jobs import job
from relay.jobs.errors import BadArguments, BadOptions
from relay.jobs.handlers import AnyJob


def test_what_cannot_follow_is_an_error_before_anything_is_sent() -> None:
    @job(name="load")
    def load_part(part: int) -> None: ...

    load: AnyJob = load_part

    @job
    def report() -> None: ...

    @job(key=lambda order: f"order:{order}")
    def keyed(order: int) -> None: ...

    create: Any = jobs.batch_create
    wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: load.template("x"), BadArguments, "job 'load': argument 'part'"),
        (load.template, BadArguments, "job 'load': missing a required argument: 'part'"),
        (lambda: keyed.template(1), BadOptions, "job 'keyed': a template has no key, as its handler has"),
        (lambda: jobs.template("mail", "x", {"a": 1}, headers={"a": "\0"}), BadOptions, "job 'x' .*headers.a: .*NUL"),
        (lambda: jobs.template("mail", "x", {"a": 1}, run_key="\0"), BadOptions, "job 'x' .*run_key: .*NUL"),
        (lambda: jobs.template("mail", "x", {"a": 1}, delay=-1), BadOptions, "job 'x' of queue 'mail': delay: "),
        (lambda: jobs.template("mail", ""), BadOptions, "1 to 200 characters"),
        (lambda: jobs.template_http("mail", "ftp://x"), BadArguments, "job 'http' of queue 'mail': .*https://"),
        (lambda: load.with_options(run_if="ended"), BadOptions, "job 'load': run_if needs after"),
        (lambda: load.with_options(batch=0), BadOptions, "job 'load': batch: "),
        *[
            (lambda given=given: load.with_options(then=given), BadOptions, "then: give a template, such as send")
            for given in (report, "report", {"name": "report"}, [report.template(), "x"])
        ],
        *[
            (lambda given=given: load.with_options(after=given), BadOptions, "job 'load': after: ")
            for given in (str(UUID(int=1)), ["1"], [1], UUID(int=1))
        ],
        *[
            (lambda name=name: create(None, **{name: [report]}), BadOptions, f"{name}: give a template")
            for name in ("on_success", "on_complete")
        ],
        *[
            (
                lambda options=options: load.with_options(**options).template(1),
                BadOptions,
                f"job 'load': a template has no {name}: {why}",
            )
            for name, why, options in (
                ("at", "give delay", {"at": datetime.now(UTC)}),
                ("idempotency_key", "it is enqueued once", {"idempotency_key": "k"}),
                ("dedupe", "it is enqueued once", {"dedupe": "waiting", "dedupe_key": "k"}),
                ("batch", "that may be closed by then", {"batch": 1}),
                ("after", "what it needs may be gone", {"after": [str(UUID(int=1))]}),
            )
        ],
    ]  # fmt: skip
    for make, kind, said in wrong:
        with pytest.raises(kind, match=said):
            make()
