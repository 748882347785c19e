"""What the recording sinks wrote down, judged: what is missing, reordered, delivered by two at once, or twice."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

Span = tuple[int, int]
"""From, to: nanoseconds of CLOCK_MONOTONIC."""

FOREVER_NS = 1 << 62
COUNTS = ("published", "delivered", "missing", "phantoms", "reordered", "overlaps", "interrupted", "duplicates")


@dataclass(frozen=True)
class Publish:
    """One call of the sink."""

    pid: int
    begun_ns: int
    ended_ns: int | None
    """None: it was killed in the middle."""
    ids: list[int]
    """What it was given."""
    confirmed: list[int]
    """What it confirmed."""
    label: str = ""
    token_length: int = 0

    @property
    def may_have_delivered(self) -> list[int]:
        return self.ids if self.ended_ns is None else self.confirmed


@dataclass
class Verdict:
    """Over all pipelines, or one. All but `interrupted` and `duplicates` of what is below `delivered` must be zero."""

    published: int = 0
    delivered: int = 0
    missing: int = 0
    phantoms: int = 0
    """Delivered, though never committed."""
    reordered: int = 0
    overlaps: int = 0
    interrupted: int = 0
    """Publishes in the middle of which the process was killed."""
    duplicates: int = 0
    """Deliveries above the first, counting all that an interrupted publish may have delivered."""
    examples: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        return not (self.missing or self.phantoms or self.reordered or self.overlaps)

    def add(self, other: "Verdict") -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.examples = (self.examples + other.examples)[:20]


def read_publishes(folder: Path, pipeline: str) -> list[Publish]:
    """Every publish of a pipeline, in the order in which they began."""
    path = folder / f"{pipeline}.jsonl"
    found: list[Publish] = []
    open_calls: dict[tuple[int, int], int] = {}
    for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
        if not line.endswith("\n"):
            break  # being written just now
        event = json.loads(line)
        caller = (event["pid"], event["thread"])
        if event["event"] == "begin":
            open_calls[caller] = len(found)
            labels = (event["label"], event["token_length"])
            found.append(Publish(event["pid"], event["at_ns"], None, event["ids"], [], *labels))
        else:
            number = open_calls.pop(caller)
            begun = found[number]
            found[number] = Publish(
                begun.pid, begun.begun_ns, event["at_ns"], begun.ids, event["ids"], begun.label, begun.token_length
            )
    return found


def confirmed_ids(folder: Path, pipeline: str) -> list[int]:
    """What was confirmed, in order, repetitions included."""
    return [number for publish in read_publishes(folder, pipeline) for number in publish.confirmed]


def judge(
    pipeline: str,
    publishes: list[Publish],
    committed: Iterable[int],
    dead: Iterable[int] = (),
    kills: Mapping[int, int] | None = None,
    frozen: Mapping[int, list[Span]] | None = None,
    keys: Mapping[int, str | None] | None = None,
) -> Verdict:
    """Judges one pipeline. `committed`: the ids that must arrive; `dead`: those that became dead letters.

    `keys`: of each id, for a pipeline with lanes: then order and overlaps are judged for each key alone.

    `kills`: pid -> when it was killed, which is when its unfinished publishes ended. `frozen`: pid -> when it was
    stopped by SIGSTOP. A publish in the middle of which its process was frozen is left out of the overlaps: no fence
    in PostgreSQL can call back what is on its way to a sink already.
    """
    wanted = set(committed)
    delivered: Counter[int] = Counter()
    for publish in publishes:
        delivered.update(publish.confirmed)
    verdict = Verdict(published=len(wanted), delivered=len(delivered.keys() & wanted))
    missing = wanted - delivered.keys() - set(dead)
    phantoms = delivered.keys() - wanted
    verdict.missing, verdict.phantoms = len(missing), len(phantoms)
    offered = [number for publish in publishes for number in publish.may_have_delivered]
    verdict.duplicates = len(offered) - len(set(offered))
    verdict.interrupted = sum(publish.ended_ns is None for publish in publishes)
    verdict.examples += [f"{pipeline}: missing {number}" for number in sorted(missing)[:5]]
    verdict.examples += [f"{pipeline}: never committed {number}" for number in sorted(phantoms)[:5]]
    for of_key in [publishes] if keys is None else _by_key(publishes, keys):
        _judge_order(pipeline, of_key, verdict)
        _judge_overlaps(pipeline, of_key, kills or {}, frozen or {}, verdict)
    return verdict


def _by_key(publishes: list[Publish], keys: Mapping[int, str | None]) -> list[list[Publish]]:
    """For each key the publishes that had messages with it, and of each no others."""
    found: defaultdict[str | None, list[Publish]] = defaultdict(list)
    for publish in publishes:
        ids: defaultdict[str | None, list[int]] = defaultdict(list)
        for number in publish.ids:
            ids[keys.get(number)].append(number)
        confirmed = set(publish.confirmed)
        for key, numbers in ids.items():
            found[key].append(replace(publish, ids=numbers, confirmed=[n for n in numbers if n in confirmed]))
    return list(found.values())


def _judge_order(pipeline: str, publishes: list[Publish], verdict: Verdict) -> None:
    """First occurrences must increase. A repeated run may go back, but only over what was seen already."""
    seen: set[int] = set()
    highest = 0
    for publish in publishes:
        for number in publish.may_have_delivered:
            if number not in seen and number < highest:
                verdict.reordered += 1
                verdict.examples.append(f"{pipeline}: {number} first seen after {highest}")
            seen.add(number)
            highest = max(highest, number)


def _judge_overlaps(
    pipeline: str,
    publishes: list[Publish],
    kills: Mapping[int, int],
    frozen: Mapping[int, list[Span]],
    verdict: Verdict,
) -> None:
    until_ns, last = 0, None
    for publish in publishes:
        ended_ns = publish.ended_ns or kills.get(publish.pid, FOREVER_NS)
        if any(start < ended_ns and publish.begun_ns < end for start, end in frozen.get(publish.pid, [])):
            continue
        if publish.begun_ns < until_ns:
            verdict.overlaps += 1
            verdict.examples.append(f"{pipeline}: {_shown(publish)} began within {last and _shown(last)}")
        if ended_ns > until_ns:
            until_ns, last = ended_ns, publish


def _shown(publish: Publish) -> str:
    ids = f"{publish.ids[0]}..{publish.ids[-1]}" if publish.ids else "nothing"
    return f"publish of {ids} by {publish.pid} at {publish.begun_ns / 1e9:.3f}"
