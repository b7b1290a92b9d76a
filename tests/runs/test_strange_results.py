"""results.json of a stranger: its layout is checked before a field is read, and its text is shown escaped."""

import copy
import json
import logging
import re

import jax.numpy as jnp
import pytest
from whole_runs import results_of

from jsubspace import compare, endings, evaluate, program, runs
from jsubspace.errors import UsageError
from jsubspace.runs import config_files, recipes, results, summary

ROW = {"name": "0.50", "networks": 1, "accuracy": 0.5}


@pytest.fixture
def written(tmp_path):
    """Writes a finished run with some places of its results changed, and returns its folder."""

    def write(name="run", **changes):
        settings = recipes.digits_cresnet8("line")
        config_files.save(tmp_path / name, settings)
        content = results_of(copy.deepcopy(settings.to_dict()), [dict(ROW)])
        for path, value in changes.items():
            *parents, last = path.split("__")
            place = content
            for parent in parents:
                place = place[int(parent) if parent.isdigit() else parent]
            if value is ...:
                del place[last]
            else:
                place[last] = value
        (tmp_path / name / "results.json").write_text(json.dumps(content))
        return tmp_path / name

    return write


POINT = {
    "name": "0.50",
    "kind": "grid",
    "roles": ["center"],
    "alpha": 0.5,
    "accuracy": 1,
    "nll": 1,
    "brier": 1,
    "ece": 1,
}

STRANGE = [
    *({"predictors": value} for value in (..., None, {}, [], [None], [{"name": "a", "networks": 1}], 5)),
    *({"predictors__0__accuracy": value} for value in ("high", True, [], 1e300)),
    *({"predictors__0__networks": value} for value in (..., 0, "1", 1.5)),
    *({"predictors__0__name": value} for value in (..., "", "\x1b[2J", "a\nb", 5, "x" * 300)),
    *({"config": value} for value in (..., None, [], {}, 5)),
    *({"config__data": value} for value in (..., None, "digits")),
    *({"config__data__name": value} for value in (..., 5, "nosuch", "\x1b[2J")),
    *({"config__evaluation__num_bins": value} for value in (0, 10**9, "20")),
    *({"config__optimizer__num_epochs": value} for value in ("many", -1, True)),
    *({"early_stopping": value} for value in ([], {}, {"epoch": 1}, {"epoch": "x", "accuracy": 1}, 5, ...)),
    *({"ensembles": value} for value in (None, {}, [{}], ...)),
    *({"points": value} for value in (None, [], {}, [{}], [POINT | {"roles": []}], [POINT | {"nll": "x"}], ...)),
    *(
        {"endpoints": value}
        for value in (None, [], {"kernels": {}}, {"kernels": {"l2": [[0, 1]], "cosine_squared": [[0]]}})
    ),
    *({"connector": value} for value in ({"verdict": "yes"}, [], 5)),
    *({"shifted": value} for value in ([], None, {"fog_1": {}}, {"fog_1": {"points": [], "ensembles": []}})),
    *({"plane": value} for value in ([], {"x": [0, 1], "y": [0, 1], "accuracy": [[1]], "corners": []})),
    *({"sharpness": value} for value in ([], {"0.50": {}}, {"0.50": {"eigenvalue": "x", "residual": 0}})),
    *({"validation": value} for value in ({}, [], 5)),
    *({"reliability": value} for value in ({}, None, {"count": [], "confidence": [], "accuracy": []})),
    *({"finished": value} for value in ("no", 1, None, ...)),
    *({"midpoint": value} for value in (None, 5)),
    *({"schema": value} for value in ("3", 3.0, True, None, ..., [3])),
]


@pytest.mark.parametrize("changes", STRANGE, ids=lambda changes: re.sub(r"[^\w,. ]+", "_", str(changes))[:60])
def test_a_strange_layout_is_one_message(written, changes):
    folder = written(**changes)
    message = r"results.json is damaged \(.+\)\. Delete it, and the same command evaluates the run again\."
    with pytest.raises(UsageError, match=message) as raised:
        results.read(folder)
    assert len(str(raised.value)) < 1000
    with pytest.raises(UsageError, match=message):
        compare.compare([folder])
    with pytest.raises(UsageError, match=message):
        runs.train(recipes.digits_cresnet8("line"), folder)


@pytest.mark.parametrize("schema", [1, 4, -1])
def test_another_schema_is_said_first(written, schema):
    """Whatever else is different there."""
    with pytest.raises(UsageError, match=rf"has schema {schema}, and this version reads 3 and 2. Evaluate it again"):
        results.read(written(schema=schema, points=..., predictors=...))


def test_the_least_that_is_accepted_is_shown(written):
    folder = written(more={"of": "another version"}, config__later=1, endpoints={"heads": "of another version"})
    assert "0.50" in summary.table(results.read(folder))
    assert runs.train(recipes.digits_cresnet8("line"), folder)["finished"]


def test_text_of_a_stranger_does_not_break_a_table_or_a_figure(written, tmp_path, capsys):
    evil = r"a | b $\frac{ \$ "
    folders = [
        written("one", predictors__0__name=evil, config__start__runs="\x1b[2J|\n$x$"),
        written("two", config__start__runs="x", config__optimizer__learning_rate=0.5),
    ]
    compare.main([*map(str, folders), f"--out={tmp_path / 'out'}"])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert {line.replace(r"\|", "").count("|") for line in printed.splitlines()[:4]} == {9}
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000


def test_the_log_and_the_message_at_the_end_are_escaped(written, capsys, tmp_path, caplog):
    folder = written()
    content = json.loads((folder / "config.json").read_text())
    content["data"]["dir"] = "/nowhere/\x1b[2J\u202e\nerror: all is lost"
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "checkpoints" / "3").mkdir(parents=True)
    program.log_ours_only()
    evaluate.load_settings(folder)
    logged = capsys.readouterr().err
    assert logged == (
        "digits is not prepared in /nowhere/\\x1b[2J\\u202e\\nerror: all is lost. The default folder is used.\n"
    )
    with pytest.raises(SystemExit):
        endings.call(lambda: (_ for _ in ()).throw(UsageError("bad \x1b[2J name\nand more")))
    assert capsys.readouterr().err == "error: bad \\x1b[2J name\nand more\n"
    logging.getLogger("jsubspace").info("%d of %s", jnp.int32(3), {"a": "\x1b"})
    assert capsys.readouterr().err == "3 of {'a': '\\x1b'}\n"
