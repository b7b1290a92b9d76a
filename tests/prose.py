"""Counts what makes our English hard to read: semicolons, riddle words and long sentences.

    python tests/prose.py [FILE ...]

The program prints a table with one line per file, and then the sentences that need work, with their places. The rules:

- Every sentence has a subject and a verb, and states one fact. No sentence starts with "Of".
- The noun is repeated. Words that stand for it are riddles (`RIDDLES`), for example "that of" and "of which".
- A paragraph has at most one semicolon, and 1,000 words have at most four.
- "Per" is written out: one line per row, not "a line a row".
"""

import argparse
import dataclasses
import pathlib
import re
import statistics

from passages import REPOSITORY, Passage, comments, count_words, docstrings, messages, read, short_name, text

_AMOUNT = r"(?:an?|one|two|three|four|five|six|eight|ten|several|many|few|some|more|\d+)"
_THING = (
    r"(?:numbers?|lines?|rows?|names?|bools?|floats?|arrays?|files?|programs?|points?|images?|positions?|values?|steps?|"
    r"networks?|words?|entry|entries|scalars?|keys?|bytes?|seconds?|batch|batches|samples?|examples?|pass|passes|times|"
    r"pairs?|devices?|events?|commands?|figures?|workers?|processes|cores?|flags?|vectors?|tests?|labels?|CODE)"
)
_UNIT = (
    r"(?:leaf|row|example|point|step|line|epoch|batch|image|device|host|side|core|second|chip|seed|file|figure|run|"
    r"network|endpoint|layer|class|pair|method|event|checkpoint|process|shard|paragraph|parameter|setting|program|round)"
)

RIDDLES = {
    "of which": r"\bof which\b",
    "whose": r"\bwhose\b",
    "what it is": r"\bwhat (?:it is|they are)\b",
    "none": r"(?<![\"'(])(?-i:\bnone\b)(?![\"')])|\bnone of\b",
    "anew": r"\banew\b",
    "those of": r"\bthose of\b",
    "that of": r"\bthat of\b",
    "so many": r"\bso many\b",
    "lest": r"\blest\b",
    "goes on": r"\b(?:go|goes|going|went|gone) on\b",
    "mends": r"\bmend(?:s|ed|ing)?\b",
    "sees to it": r"\bsees? to it\b",
    "is there": r"\b(?:is|are|was|were|be)(?: already| still| all| not| always| yet)? there\b(?! (?:an?|any|no|one|some)\b)",
    "comes to": r"\b(?:come|comes|came|coming) to\b",
    "tells": r"\btells\b",
    "a X a Y": rf"\b(?:{_AMOUNT} (?:\w+ )?{_THING}|(?!CODE){_THING}) an? {_UNIT}\b(?! of\b)",
}
"""Words and phrases that make a reader go back, as regular expressions."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a text has, per 1,000 words where it is a rate."""

    words: int
    semicolons: float
    riddles: float
    median: float
    p90: float
    starts_with_of: int
    crowded: int
    """Passages with more than one semicolon."""


def riddles(words: str) -> list[str]:
    """The names of the riddle words in a text, each as often as it occurs."""
    return [name for name, pattern in RIDDLES.items() for _ in re.findall(pattern, words, re.IGNORECASE)]


def starts_with_of(passage: Passage) -> bool:
    """Whether a sentence of the passage starts with "Of"."""
    return any(sentence.startswith("Of ") for sentence in passage.sentences)


def count(passages: list[Passage]) -> Counts:
    """Counts over all passages of a text."""
    words = sum(count_words(passage.text) for passage in passages)
    lengths = sorted(count_words(part) for passage in passages if passage.is_running for part in passage.sentences)
    per_thousand = 1000 / max(words, 1)
    return Counts(
        words,
        per_thousand * sum(passage.text.count(";") for passage in passages),
        per_thousand * sum(len(riddles(passage.text)) for passage in passages),
        statistics.median(lengths) if lengths else 0,
        lengths[round(0.9 * (len(lengths) - 1))] if lengths else 0,
        sum(starts_with_of(passage) for passage in passages),
        sum(passage.text.count(";") > 1 for passage in passages),
    )


def groups() -> dict[str, list[Passage]]:
    """The texts that have a goal, by name."""
    ours, tables, programs = (
        sorted((REPOSITORY / name).rglob("*.py")) for name in ("jsubspace", "configs", "experiments")
    )
    return {
        "docstrings and comments of jsubspace": [p for path in ours for p in docstrings(path) + comments(path)],
        "messages of jsubspace": [p for path in ours for p in messages(path)],
        "docstrings of configs": [p for path in tables for p in docstrings(path)],
        "docstrings of experiments": [p for path in programs for p in docstrings(path)],
        "docs": [p for path in sorted((REPOSITORY / "docs").glob("*.md")) for p in text(path)],
        **{
            name: text(REPOSITORY / name)
            for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "experiments/README.md")
        },
    }


def worst(passages: list[Passage]) -> list[str]:
    """Every sentence with a semicolon or a riddle word, with its place and what was found."""
    lines = []
    for passage in passages:
        for sentence in passage.sentences:
            found = [";"] * sentence.count(";") + riddles(sentence) + ["Of"] * sentence.startswith("Of ")
            if found:
                lines.append(f"{passage.place}: {', '.join(found)}: {sentence.strip()}")
    return lines


def main() -> None:
    """Prints the table of the files, or of all groups if no file is named, and the sentences that need work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="Python or Markdown files; all groups without")
    parser.add_argument("--worst", type=int, default=40, help="how many sentences are printed at most")
    options = parser.parse_args()
    texts = {short_name(path): read(path) for path in options.files} or groups()
    width = max(map(len, texts))
    print(f"{'':{width}}  words  ; per 1,000  riddles per 1,000  median  p90  Of  crowded")
    for name, passages in texts.items():
        c = count(passages)
        print(
            f"{name:{width}}  {c.words:5}  {c.semicolons:11.1f}  {c.riddles:17.1f}  {c.median:6g}  {c.p90:3g}  "
            f"{c.starts_with_of:2}  {c.crowded:7}"
        )
    lines = [line for passages in texts.values() for line in worst(passages)]
    print(*lines[: options.worst], sep="\n")
    if len(lines) > options.worst:
        print(f"... and {len(lines) - options.worst} more (--worst)")


if __name__ == "__main__":
    main()
