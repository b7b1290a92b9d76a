"""The prose of a file: its text if it is Markdown, its docstrings, comments and messages if it is Python.

Code is not prose: fenced and indented blocks, inline code, doctests, URLs and the lines of a table are left out. The
cells of a table are read.
"""

import ast
import dataclasses
import inspect
import io
import pathlib
import re
import tokenize
from collections.abc import Iterator

REPOSITORY = pathlib.Path(__file__).parent.parent

_SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Examples?|References):$")
_FIELD = re.compile(r"\*{0,2}\w[\w, *.`]*(\([^)]*\))?: ")
_ITEM = re.compile(r"([-*]|\d+\.) ")
_LOGS = {"debug", "info", "warning", "warn", "error", "exception", "critical", "log", "log_first_n", "print"}
_NO_COMMENT = re.compile(r"#\s*(noqa|type:|fmt:|ruff:|mypy:|!|%%|---)")


@dataclasses.dataclass(frozen=True)
class Passage:
    """One paragraph, item of a list, heading, cell of a table, comment or message."""

    place: str
    text: str
    is_running: bool = True
    """Whether it consists of sentences: False for a heading or a cell, which do not count for the sentences' length."""

    @property
    def sentences(self) -> list[str]:
        """The passage's sentences, without the spaces between them."""
        whole = re.sub(r"\b(e\.g|i\.e|et al|vs|etc|cf|approx)\.", r"\1", self.text)
        return [part for part in re.split(r"(?<=[.!?])[)\"']?\s+(?=[A-Z(\"'])", whole) if part.strip()]


def read(path: pathlib.Path) -> list[Passage]:
    """All prose of a file."""
    return text(path) if path.suffix == ".md" else docstrings(path) + comments(path) + messages(path)


def count_words(text: str) -> int:
    """The number of words in a text: pieces between blanks that have a letter or a digit."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


def text(path: pathlib.Path) -> list[Passage]:
    """The passages of a Markdown file."""
    return list(_passages(path.read_text(encoding="utf-8"), short_name(path), 1))


def docstrings(path: pathlib.Path) -> list[Passage]:
    """The docstrings of a Python file, also those behind attributes and settings."""
    return [
        passage
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for passage in _passages(inspect.cleandoc(node.value.value), short_name(path), node.lineno)
    ]


def comments(path: pathlib.Path) -> list[Passage]:
    """The comments of a Python file; lines of one comment form one passage."""
    found: list[tuple[int, int, str]] = []  # last line, column, text
    passages = []
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type != tokenize.COMMENT or _NO_COMMENT.match(token.string):
            continue
        line, column, words = *token.start, token.string.lstrip("# ")
        if found and found[-1][:2] == (line - 1, column):
            found[-1] = (line, column, f"{found[-1][2]} {words}")
        else:
            found.append((line, column, words))
    for line, _, words in found:
        passages.append(Passage(f"{short_name(path)}:{line}", _clean(words)))
    return passages


def messages(path: pathlib.Path) -> list[Passage]:
    """What a Python file says when it raises, logs, warns or prints: its texts of three words or more."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and _is_message(node.func)):
            found.update((id(part), part) for part in _strings(node))
    texts = ((part.lineno, _clean(_literal(part))) for part in found.values())
    return [Passage(f"{short_name(path)}:{line}", words) for line, words in texts if count_words(words) > 2]


def _passages(whole: str, name: str, first: int) -> Iterator[Passage]:
    block: list[str] = []
    start, is_fenced, is_doctest, is_code, after_blank = first, False, False, False, True

    def finished() -> Iterator[Passage]:
        if block:
            yield Passage(f"{name}:{start}", _clean(" ".join(block)))
        block.clear()

    for number, line in enumerate(whole.splitlines(), first):
        content = line.strip()
        indent = len(line) - len(line.lstrip())
        if content.startswith("```"):
            is_fenced = not is_fenced
        is_doctest = bool(content) and (is_doctest or content.startswith(">>>"))
        is_code = indent >= 4 and (is_code or after_blank) and bool(content)
        after_blank = not content
        if not content or is_fenced or is_doctest or is_code or re.match(r"```|<!--|[-=]{3,}$", content):
            yield from finished()
        elif content.startswith("|"):
            yield from finished()
            for cell in _clean(content).split("|"):
                if count_words(cell):
                    yield Passage(f"{name}:{number}", cell.strip(), is_running=False)
        elif content.startswith("#") or _SECTION.match(content):
            yield from finished()
            yield Passage(f"{name}:{number}", _clean(content.strip("# ")), is_running=False)
        else:
            if _ITEM.match(content) or (indent >= 2 and _FIELD.match(content)):
                yield from finished()
                content = _FIELD.sub("", _ITEM.sub("", content), count=1) if indent else _ITEM.sub("", content)
            if not block:
                start = number
            block.append(content)
    yield from finished()


def _clean(words: str) -> str:
    """The text without the inside of code, addresses and emphasis."""
    words = re.sub(r"``.+?``|`[^`]+`", "CODE", words)
    words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", words)
    words = re.sub(r"https?://\S+|&\w+;", "URL", words).replace("<br>", " ")
    return re.sub(r"\*\*|(?<!\w)\*|\*(?!\w)", "", words)


def _is_message(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in _LOGS or name.endswith(("Error", "Exception"))


def _strings(node: ast.AST) -> Iterator[ast.expr]:
    """The string literals below a node, f-strings whole."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.JoinedStr) or (isinstance(child, ast.Constant) and isinstance(child.value, str)):
            yield child
        else:
            yield from _strings(child)


def _literal(part: ast.expr) -> str:
    if isinstance(part, ast.JoinedStr):
        return "".join(_literal(value) if isinstance(value, ast.Constant) else "CODE" for value in part.values)
    return str(part.value) if isinstance(part, ast.Constant) else ""


def short_name(path: pathlib.Path) -> str:
    path = path.resolve()
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)
