"""Runs a fuzzer for a time, and names the seed of what fails.

A fuzzer is a function that makes one case of a random generator and checks what must be true of it. Each case has a
generator of its own, so a failure is repeated with the seed and the number that it names, and nothing else.
"""

import argparse
import os
import random
import time
from collections.abc import Callable

Case = Callable[[random.Random], None]

SECONDS = float(os.environ.get("FUZZ_SECONDS", "2"))
"""Of each fuzzer in the tests; `make fuzz` gives more."""


def new_seed() -> int:
    """`FUZZ_SEED`, or another each time."""
    return int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(2**32))


def run(name: str, case: Case, seconds: float, seed: int, only: int | None = None) -> int:
    """How many cases held. Raises AssertionError that tells how to repeat the one that did not."""
    print(f"fuzzing {name}: seed {seed}", flush=True)
    until = time.monotonic() + seconds
    number = 0 if only is None else only
    while True:
        try:
            case(random.Random(f"{seed}/{number}"))
        except Exception as error:
            again = f"python -m tests.fuzz.{name} --seed {seed} --case {number}"
            raise AssertionError(f"{type(error).__name__}: {str(error)[:2000]}\nrepeat it: {again}") from error
        number += 1
        if only is not None or time.monotonic() >= until:
            print(f"fuzzing {name}: {number} cases", flush=True)
            return number


def main(name: str, case: Case) -> None:
    """The command line of a fuzzer."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.fuzz.{name}")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--seed", type=int, default=None, help="by default another each time; it is printed")
    parser.add_argument("--case", type=int, default=None, help="only the case of this number")
    given = parser.parse_args()
    run(name, case, given.seconds, new_seed() if given.seed is None else given.seed, given.case)
