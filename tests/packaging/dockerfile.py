"""Our Dockerfile as stages of instructions. Knows what ours uses, and refuses the rest."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from string import Template

from dockerfile_parse import DockerfileParser  # type: ignore[import-untyped]

CHECKOUT = Path(__file__).parents[2]
KNOWN = {"ARG", "FROM", "COPY", "ENV", "WORKDIR", "RUN", "LABEL", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD"}


@dataclass(frozen=True)
class Instruction:
    name: str
    flags: dict[str, str]
    """`--from=builder` as from: builder."""
    text: str
    """Without the flags."""
    line: int

    @property
    def words(self) -> list[str]:
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)

    def pairs(self, values: Mapping[str, str]) -> dict[str, str]:
        """Of ARG, ENV, LABEL, with what they refer to put in."""
        split = (word.partition("=") for word in self.words)
        return {name: substitute(value, values) for name, _, value in split}


@dataclass
class Stage:
    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def of(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]

    def last(self, name: str) -> Instruction:
        return self.of(name)[-1]


@dataclass
class Dockerfile:
    arguments: dict[str, str]
    """Those before the first stage: what the stages stand on."""
    stages: list[Stage]

    @property
    def final(self) -> Stage:
        return self.stages[-1]

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Raises KeyError for what is not set."""
    return Template(text).substitute(values)


def read(content: str | None = None) -> Dockerfile:
    """The Dockerfile of the checkout, or another."""
    source = (CHECKOUT / "Dockerfile").read_text() if content is None else content
    made = Dockerfile({}, [])
    for raw in DockerfileParser(fileobj=BytesIO(source.encode())).structure:
        if raw["instruction"] == "COMMENT":
            continue
        instruction = _instruction(raw["instruction"], raw["value"], raw["startline"] + 1)
        if instruction.name == "FROM":
            base, *named = instruction.words
            made.stages.append(Stage(substitute(base, made.arguments), named[1] if named else ""))
        elif made.stages:
            made.stages[-1].instructions.append(instruction)
        else:
            made.arguments |= instruction.pairs({})
    return made


def _instruction(name: str, value: str, line: int) -> Instruction:
    assert name in KNOWN, f"line {line}: {name} is not known here"
    flags = {}
    while value.startswith("--"):
        flag, value = value.split(maxsplit=1)
        option, _, given = flag.removeprefix("--").partition("=")
        assert option not in flags, f"line {line}: a second --{option} is not known here"
        flags[option] = given
    return Instruction(name, flags, value, line)
