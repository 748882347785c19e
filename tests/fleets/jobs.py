"""Jobs in a fleet whose handlers a test can spoil: see `job_handlers`."""

from pathlib import Path
from typing import Any

from tests.fleets import job_handlers


def job_folder(folder: Path) -> Path:
    """Where files spoil handlers: `refuse`, `hang`."""
    made = folder / "jobs"
    made.mkdir(exist_ok=True)
    return made


def jobs_in(folder: Path) -> dict[str, Any]:
    """The environment of workers that run these jobs; one plain function at a time."""
    return {
        "RELAY_JOB_MODULES": job_handlers.__name__,
        "RELAY_JOB_THREADS": "1",
        "TEST_JOBS_FOLDER": str(job_folder(folder)),
    }
