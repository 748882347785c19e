"""Does what the Dockerfile says, in folders instead of containers."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from docker.utils.build import exclude_paths  # type: ignore[import-untyped]

from tests.packaging.dockerfile import CHECKOUT, Dockerfile, Instruction, Stage, substitute
from tests.packaging.image_root import BASE_PATH, ImageRoot, network_environment

UV_IMAGE = "ghcr.io/astral-sh/uv:"
# The base image has no compiler, so what needs one must fail here too.
NO_COMPILER = {"CC": "/bin/false", "CXX": "/bin/false"}
# Part of every build context, whatever .dockerignore says.
ALWAYS_SENT = {".dockerignore", "Dockerfile"}


@dataclass
class Built:
    """A stage that was carried out: its files, and what its programs run with."""

    root: ImageRoot
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": BASE_PATH})
    workdir: str = "/"
    user: str = "0:0"


def uv_program() -> Path:
    """The uv of the Makefile."""
    (found,) = (CHECKOUT / ".cache").glob("uv-*[0-9]/bin/uv")
    return found


def make_context(folder: Path) -> Path:
    """The build context: what .dockerignore lets through of the checkout."""
    patterns = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for name in exclude_paths(str(CHECKOUT), patterns):
        if name not in ALWAYS_SENT and (CHECKOUT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target)
    return folder


class Build:
    def __init__(self, dockerfile: Dockerfile, context: Path, folder: Path) -> None:
        self._dockerfile, self._context, self._folder = dockerfile, context, folder
        self._stages: dict[str, Built] = {}

    def run(self) -> Built:
        """The last stage."""
        for number, stage in enumerate(self._dockerfile.stages):
            built = Built(ImageRoot(self._folder / str(number)))
            self._stages[stage.name] = built
            if stage.base.startswith(UV_IMAGE):
                shutil.copy2(uv_program(), built.root.at("/uv"))
            self._carry_out(stage, built)
        return built

    def _carry_out(self, stage: Stage, built: Built) -> None:
        arguments: dict[str, str] = {}
        for step in stage.instructions:
            known = arguments | built.environment
            match step.name:
                case "ARG":
                    arguments |= step.pairs(known)
                case "ENV":
                    built.environment |= step.pairs(known)
                case "WORKDIR":
                    built.workdir = step.text
                    built.root.at(step.text).mkdir(parents=True, exist_ok=True)
                case "USER":
                    built.user = step.text
                case "COPY":
                    self._copy(step, built, known)
                case "RUN":
                    self._run(step, built, known)

    def _copy(self, step: Instruction, built: Built, known: dict[str, str]) -> None:
        assert step.flags.keys() <= {"from", "chmod"}, f"line {step.line}: {step.flags}"
        *sources, destination = (substitute(word, known) for word in step.words)
        target = built.root.at(os.path.join(built.workdir, destination))
        for source in sources:
            found = self._source(step, source)
            assert found.exists(), f"Dockerfile line {step.line}: {source} is not in the build context"
            into = target / found.name if found.is_file() and destination.endswith("/") else target
            if found.is_dir():
                # The files of a stage do not change any more, so they are linked.
                link = os.link if "from" in step.flags else shutil.copy2
                shutil.copytree(found, into, symlinks=True, dirs_exist_ok=True, copy_function=link)
            else:
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, into)
            if "chmod" in step.flags:
                into.chmod(int(step.flags["chmod"], 8))

    def _source(self, step: Instruction, source: str) -> Path:
        return self._stages[step.flags["from"]].root.at(source) if "from" in step.flags else self._context / source

    def _run(self, step: Instruction, built: Built, known: dict[str, str]) -> None:
        assert step.flags.keys() <= {"mount"}, f"line {step.line}: {step.flags}"
        environment = network_environment() | NO_COMPILER | {"HOME": "/root"} | known
        command = ["/bin/sh", "-c", step.text]
        built.root.run(command, environment, cwd=built.workdir, user=built.user, writable=_caches(step))


def _caches(step: Instruction) -> dict[Path, str]:
    if "mount" not in step.flags:
        return {}
    mount = dict(part.partition("=")[::2] for part in step.flags["mount"].split(","))
    assert mount.pop("type") == "cache" and mount.keys() == {"target"}, f"line {step.line}: {step.flags}"
    cache = subprocess.run([uv_program(), "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    Path(cache).mkdir(parents=True, exist_ok=True)
    return {Path(cache): mount["target"]}
