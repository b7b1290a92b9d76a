"""What a stranger or a broken disk makes of a file: mutations of JSON and of bytes, for hypothesis."""

import json

from hypothesis import strategies as st

RAW = (
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "1" + "0" * 400,
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 60 + "1" + "}" * 60,
)
"""Tokens that Python's writer does not write."""

VALUES = (
    None, True, False, 0, -1, 1, 3, 1.5, -1e-320, 1e300, 2**31, 2**63, -(2**53) - 1,
    "", " ", "x", "1", "accuracy", "\x1b[2J\x1b]0;owned\x07", "\ud800", "\u202e", "a | b\n$\\frac{$", "../..", "\0",
    "x" * 3000, "٤", "²", [], {}, [[]], [None], {"": 0}, {"a": {"b": {}}}, [0.5, 0.5], [1] * 3,
)  # fmt: skip


def paths(content, path=()):
    """The places of all values."""
    yield path
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in inner:
        yield from paths(value, (*path, name))


def at(content, path):
    for name in path:
        content = content[name]
    return content


def mutated_json(draw, text):
    """The text of JSON with one to three places changed, or with some bytes changed."""
    if draw(st.integers(0, 5)) == 0:
        return mutated_bytes(draw, text.encode())
    content, raw = json.loads(text), {}
    for _ in range(draw(st.integers(1, 3))):
        content = _changed(draw, content, raw)
    text = json.dumps(content)
    for name, token in raw.items():
        text = text.replace(json.dumps(name), token)
    if draw(st.integers(0, 9)) == 0 and isinstance(content, dict) and content:
        name = draw(st.sampled_from(sorted(content)))
        text = "{" + json.dumps(name) + ": 0, " + text[1:]  # The name is there twice.
    return text.encode()


def _changed(draw, content, raw):
    """Content with one place dropped, renamed, replaced, put deeper, or of another type. ``raw`` gets tokens by name."""
    path = draw(st.sampled_from(sorted(paths(content), key=repr)))
    value = at(content, path)
    kind = draw(st.sampled_from(["drop", "rename", "replace", "raw", "deeper", "retype", "repeat"]))
    if kind == "raw":
        name = f"@raw{len(raw)}@"
        raw[name] = draw(st.sampled_from(RAW))
        value = name
    elif kind == "replace":
        value = draw(st.sampled_from(VALUES))
    elif kind == "deeper":
        value = [value] if draw(st.booleans()) else {"inner": value}
    elif kind == "retype":
        value = str(value) if not isinstance(value, str) else len(value)
    elif kind == "repeat" and isinstance(value, list):
        value = value * draw(st.sampled_from([0, 2, 50]))
    if not path:
        return value
    parent, name = at(content, path[:-1]), path[-1]
    if kind == "drop":
        del parent[name]
    elif kind == "rename" and isinstance(parent, dict):
        parent[draw(st.sampled_from(["self", "kind", "x", "", "a.b", "\x1b[1m"]))] = parent.pop(name)
    else:
        parent[name] = value
    return content


def mutated_bytes(draw, content):
    """Bytes with a bit flipped, a part cut out, or something put in."""
    place = draw(st.integers(0, max(len(content) - 1, 0)))
    kind = draw(st.sampled_from(["flip", "cut", "end", "insert", "nothing"]))
    if kind == "flip" and content:
        return content[:place] + bytes([content[place] ^ (1 << draw(st.integers(0, 7)))]) + content[place + 1 :]
    if kind == "cut":
        return content[:place] + content[place + draw(st.integers(1, 40)) :]
    if kind == "end":
        return content[:place]
    if kind == "insert":
        return content[:place] + draw(st.binary(min_size=1, max_size=20)) + content[place:]
    return b""
