"""Finds the words that CONTRIBUTING.md asks us not to use.

`python -m tests.words` prints each place, and exits 1 if there is one. The list is the table under "Words" in
CONTRIBUTING.md. `typos` checks the spelling beside it, and knows single words only.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = "CONTRIBUTING.md"
READ = re.compile(
    r"\.(md|py|sql|ya?ml|toml|tpl|txt|json|svg|sh)$|(^|/)(Makefile|Dockerfile|NOTES\.txt|run|install-\w+|[\w-]+-folder)$"
)
OURS = re.compile(r"(?!LICENSE$|uv\.lock$|tests/.*data/|tests/docs/test_words\.py$|benchmarks/results\.md$)")
_ROW = re.compile(r"^\| (?P<old>[^|]+) \| (?P<new>[^|]+) \|$", re.MULTILINE)


def words() -> dict[str, str]:
    """Each old word or phrase, and what to write in its place. A word ends in `*` where it has further forms."""
    table = (ROOT / LIST).read_text("utf-8").partition("\n## Words\n")[2].partition("\n## ")[0]
    rows = [(row["old"].strip(), row["new"].strip()) for row in _ROW.finditer(table)]
    return {old.strip(): new for olds, new in rows[1:] if not olds.startswith("---") for old in olds.split(",")}


def found(text: str, listed: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    """(line number, what stands there, what to write), phrases over a line break included."""
    for old, new in listed.items():
        for match in _pattern(old).finditer(text):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), new


def _pattern(old: str) -> re.Pattern[str]:
    # Between two words of a phrase a line may end, and the next may begin as a comment does.
    parts = [re.escape(part).replace(r"\*", r"\w*") for part in old.split()]
    return re.compile(r"(?<![\w-])" + r"(?:\s|\n\s*(?:#|--|//)?)+".join(parts) + r"(?![\w-])", re.IGNORECASE)


def check() -> list[str]:
    """One line for each place in the files that git tracks or would track."""
    listed = words()
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    places = []
    for name in sorted(names):
        path = ROOT / name
        if not (READ.search(name) and OURS.match(name) and path.is_file()):
            continue
        text = path.read_text("utf-8")
        if name == LIST:
            text = _ROW.sub("", text)
        places += [f"{name}:{line}: {old!r}: write {new}" for line, old, new in sorted(found(text, listed))]
    return places


def main() -> None:
    places = check()
    print("\n".join(places or ["words: nothing found"]))
    sys.exit(1 if places else 0)


if __name__ == "__main__":
    main()
