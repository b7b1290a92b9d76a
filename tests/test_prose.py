"""The English stays plain: few semicolons and no riddles. ``python tests/prose.py FILE`` shows what to change."""

import pathlib

import passages
import prose
import pytest

GOAL = (4, 1, 0, 0)
"""Semicolons and riddles per 1,000 words, passages with a sentence that starts with "Of", and with two semicolons."""

GROUPS = prose.groups()


@pytest.mark.parametrize("name", GROUPS)
def test_the_text_is_plain(name):
    found = prose.count(GROUPS[name])
    semicolons, riddles, starts_with_of, crowded = GOAL
    reached = (
        found.semicolons <= semicolons
        and found.riddles <= riddles
        and found.starts_with_of <= starts_with_of
        and found.crowded <= crowded
    )
    assert reached, "\n".join([str(found), *prose.worst(GROUPS[name])[:20]])


@pytest.mark.parametrize(
    ("sentence", "riddle"),
    [
        ("Three networks, of which one is best.", "of which"),
        ("A network whose loss is low.", "whose"),
        ("It returns what it is.", "what it is"),
        ("Of three runs none is finished.", "none"),
        ("None of the runs is finished.", "none"),
        ("It draws the picture anew.", "anew"),
        ("The statistics are those of the batch.", "those of"),
        ("The loss is that of the midpoint.", "that of"),
        ("There are so many networks.", "so many"),
        ("It stops, lest the run be lost.", "lest"),
        ("The run goes on from step 3.", "goes on"),
        ("It mends the file.", "mends"),
        ("The writer sees to it.", "sees to it"),
        ("It reads what is there.", "is there"),
        ("The files are already there.", "is there"),
        ("It comes to the same.", "comes to"),
        ("The journal tells of a step.", "tells"),
        ("Tells which step is next.", "tells"),
        ("It prints a line a row.", "a X a Y"),
        ("A mask has one bool a leaf.", "a X a Y"),
        ("It keeps four numbers an example.", "a X a Y"),
        ("The tree has one ``[m]`` a leaf.", "a X a Y"),
    ],
)
def test_a_riddle_is_noticed(tmp_path, sentence, riddle):
    assert riddle in [name for passage in _markdown(tmp_path, sentence) for name in prose.riddles(passage.text)]


@pytest.mark.parametrize(
    "sentence",
    [
        "Pass None, `none` or \"none\" to leave it out.",
        "Is there a way? There is one, and there are two more.",
        "It prints one line per row, and each leaf has a row of a table.",
        "The point of a line is a network.",
        "`tells` is the name of a function.",
    ],
)  # fmt: skip
def test_plain_words_are_no_riddles(tmp_path, sentence):
    assert [prose.riddles(passage.text) for passage in _markdown(tmp_path, sentence)] == [[]]


def test_semicolons_and_sentences_are_counted(tmp_path):
    found = prose.count(_markdown(tmp_path, "One is here; two is not; three is. Of four words.\n\n- a b; c\n- d e\n"))
    assert (found.words, found.starts_with_of, found.crowded) == (16, 1, 1)
    assert found.semicolons == pytest.approx(1000 * 3 / 16)
    assert (found.median, found.p90) == (3, 8)


def test_code_is_no_prose(tmp_path):
    found = _markdown(
        tmp_path,
        "# A heading\n\n```\na; b; c\n```\n\nWords with `x; y` and [a link](http://a;b).\n\n    indented; code\n\n"
        "| a | b; c |\n| --- | --- |\n",
    )
    assert [passage.text for passage in found] == ["A heading", "Words with CODE and a link.", "a", "b; c"]
    assert [passage.is_running for passage in found] == [False, True, False, False]


def test_a_python_file_has_docstrings_comments_and_messages(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        '"""First line; of a module."""\n\nX = 1  # behind code\n"""Behind a name."""\n\n'
        "def f(x):\n"
        '    """Returns x.\n\n    Args:\n      x: a number; any.\n\n    Example:\n      >>> f(1); f(2)\n      1\n    """\n'
        "    # one comment\n    # of two lines\n"
        '    raise ValueError(f"{x} is wrong; " "give a number.")  # noqa: EM101\n'
        '    logging.info("step %d is done", x)\n'
    )
    assert [passage.text for passage in passages.docstrings(path)] == [
        "First line; of a module.", "Behind a name.", "Returns x.", "Args:", "a number; any.", "Example:",
    ]  # fmt: skip
    assert [passage.text for passage in passages.comments(path)] == ["behind code", "one comment of two lines"]
    found = {passage.text for passage in passages.messages(path)}
    assert found == {"CODE is wrong; give a number.", "step %d is done"}
    assert {passage.place.rpartition(":")[2] for passage in passages.messages(path)} == {"18", "19"}


def test_the_worst_sentences_have_a_place(tmp_path):
    (line,) = prose.worst(_markdown(tmp_path, "This is plain.\n\nThis one; it is not. This is.\n"))
    assert line == f"{(tmp_path / 'text.md').resolve()}:3: ;: This one; it is not."


def test_every_group_has_text():
    """A group without words would reach every goal: only the guides may be missing."""
    assert [name for name, group in GROUPS.items() if not prose.count(group).words] in ([], ["docs"])


def _markdown(folder: pathlib.Path, words: str) -> list[passages.Passage]:
    path = folder / "text.md"
    path.write_text(words)
    return passages.text(path)
