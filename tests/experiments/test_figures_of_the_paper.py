"""The figures' commands: what they declare is possible, what is missing is trained once, what they print is what was measured."""

import dataclasses
import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy import stats

from jsubspace.errors import UsageError
from jsubspace.runs import limits

pytest.importorskip("matplotlib")

import job_settings
from places import REPOSITORY
from whole_runs import results_of

from experiments import account, appendix_averages, claims, figure8, figure12, redraw, reproduced
from experiments.__main__ import MODULES
from experiments.lib import crew, figure, jobs, plots, scenarios
from experiments.lib.figure import Panel, Series
from experiments.lib.verdicts import Measured

FIGURES = [module.FIGURE for module in MODULES]
RECORDED = sorted((REPOSITORY / "experiments" / "results" / "figures").glob("*/*.json"))


def declared(made, scale, seeds=(0, 1, 2)):
    return [job for labelled in made.declared(scale, seeds).values() for found in labelled.values() for job in found]


@pytest.mark.parametrize("scale", figure.SCALES)
def test_every_declared_job_is_possible_and_has_a_folder_of_its_own(scale):
    folders = {}
    for made in FIGURES:
        found = declared(made, scale)
        assert found
        for job in jobs.in_order(found):
            folders.setdefault(job.name, set()).add(job)
    assert {name for name, of_name in folders.items() if len(of_name) > 1} == set()
    for (job,) in folders.values():
        settings = job_settings.of_job(job)
        limits.validate(settings)
        assert settings.seed == job.seed


@pytest.mark.parametrize("made", FIGURES, ids=[made.name for made in FIGURES])
def test_every_figure_has_a_module_and_a_command_of_its_own(made):
    path = REPOSITORY / "experiments" / f"{made.name}.py"
    assert f"| `python -m experiments.{made.name}` |" in (REPOSITORY / "experiments" / "README.md").read_text()
    assert path.is_file()


def test_every_module_of_a_figure_is_among_all_figures():
    files = {path.stem for path in (REPOSITORY / "experiments").glob("*.py")}
    assert {name for name in files if re.fullmatch(r"figure\d+|appendix_\w+|stats_\w+", name)} == {
        made.name for made in FIGURES
    }


def test_label_noise_and_budgets_make_other_scenarios_but_nothing_else_does():
    scenario = scenarios.FASHION
    assert scenario.noisy(0.0) is scenario
    assert scenario.longer(1) is scenario
    assert dict(scenario.noisy(0.4).settings)["data.label_noise"] == 0.4
    assert scenario.longer(0.5).num_epochs == scenario.num_epochs // 2
    assert len({scenario.name, scenario.noisy(0.4).name, scenario.noisy(0.2).name, scenario.longer(2).name}) == 4


def test_jobs_stand_behind_the_jobs_that_they_start_from():
    ordered = jobs.in_order(jobs.branches(scenarios.FASHION, [0, 1], 5))
    for place, job in enumerate(ordered):
        assert all(ordered.index(start) < place for start in job.starts)
    assert len(ordered) == 6  # of each seed the whole job, the branch and the line through both


def fake(monkeypatch, code):
    """Jobs that execute ``code``, with the job's name and folder as arguments."""
    monkeypatch.setattr(jobs.Job, "command", lambda job, root: ["-c", code, job.name, str(root / job.name)])
    monkeypatch.setattr(
        jobs, "results", lambda job, root: {"finished": True} if (root / job.name / "done").exists() else None
    )


FINISH = """
import pathlib, sys
folder = pathlib.Path(sys.argv[2]); folder.mkdir(parents=True)
for start in {starts!r}.get(sys.argv[1], []):
    assert (folder.parents[2] / start / "done").exists(), "started before what it starts from"
(folder / "done").write_text("")
"""


@pytest.mark.parametrize("at_once", [1, 3])
def test_what_is_missing_is_trained_once_and_in_order(monkeypatch, tmp_path, at_once):
    pairs = jobs.branches(scenarios.FASHION, [0, 1], 5)
    starts = {job.name: [start.name for start in job.starts] for job in jobs.in_order(pairs)}
    fake(monkeypatch, FINISH.format(starts=starts))
    crew.finish(pairs, tmp_path, at_once)
    trained = crew.trained(pairs, tmp_path)
    assert set(trained) == set(starts)
    assert all(row["seconds"] >= 0 and row["machine"] for row in trained.values())
    before = (tmp_path / "trained.jsonl").read_text()
    crew.finish(pairs, tmp_path, at_once)  # would fail in the folders that are there
    assert (tmp_path / "trained.jsonl").read_text() == before


def test_a_run_that_fails_ends_the_command_with_its_last_words(monkeypatch, tmp_path):
    fake(monkeypatch, "import sys; print('error: the disk is full'); sys.exit(2)")
    with pytest.raises(UsageError, match=r"seed0 ended with exit code 2: error: the disk is full \(the whole log is "):
        crew.finish(jobs.declare(scenarios.FASHION, "line", [0]), tmp_path, 1)


INTERRUPTED = """
import pathlib, sys
from experiments.lib import crew, jobs, scenarios
from jsubspace import program
code = '''
import signal, sys, time
def end(*_):
    print("saved"); sys.exit(75)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
'''
jobs.Job.command = lambda job, root: ["-c", code]
root = pathlib.Path(sys.argv[1])
program.run(lambda: crew.finish(jobs.declare(scenarios.FASHION, "line", [0, 1, 2]), root, 2))
"""


def test_a_signal_lets_the_runs_under_way_save_and_starts_no_other(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        text=True,
    )
    logs = [tmp_path / "fashion_mnist" / "line" / f"seed{seed}.log" for seed in (0, 1, 2)]
    deadline = time.monotonic() + 60
    while not all(log.is_file() and "ready" in log.read_text() for log in logs[:2]):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "stopped by SIGTERM. Run the same command again." in errors
    assert [log.read_text().splitlines() for log in logs[:2]] == [["ready", "saved"]] * 2
    assert not logs[2].exists() or "ready" not in logs[2].read_text()


def test_a_folder_with_a_run_of_other_settings_is_refused(tmp_path):
    (job,) = jobs.declare(scenarios.FASHION, "line", [0])
    settings = job_settings.of_job(job).to_dict()
    settings["penalty"]["beta"] = 1.0
    folder = tmp_path / job.name
    folder.mkdir(parents=True)
    results = results_of(settings, [{"name": "0.50", "networks": 1, "accuracy": 0.5}])
    (folder / "results.json").write_text(json.dumps(results))
    assert jobs.results(job, tmp_path)["finished"]
    (other,) = jobs.declare(scenarios.FASHION, "line", [0], penalty__beta=2.0)
    assert jobs.results(other, tmp_path) is None
    settings["data"]["batch_size"] = 64
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(UsageError, match=r"trained with config.data.batch_size = 64, but 32 is declared"):
        jobs.results(job, tmp_path)


DIGITS = scenarios.Scenario(
    "digits",
    "MLP (digits)",
    "configs/digits_cresnet8_standard.py",
    2,
    (
        ("model.name", "mlp"),
        ("model.depth", 1),
        ("model.width", 16),
        ("optimizer.warmup_epochs", 1),
        ("data.batch_size", 479),
        ("evaluation.num_points", 3),
        ("evaluation.num_resamples", 20),
        ("num_devices", 1),
    ),
    one_core=True,
)


def test_a_figure_from_nothing(tmp_path, data_dir, one_device, monkeypatch):
    """Two real trainings, then files. The same command again only draws, and equal numbers."""
    from experiments import figure4

    def jobs_of(scenario, seeds):
        return {name: jobs.declare(scenario, name, seeds) for name in ("standard", "line")}

    def panels(scenario, results):
        line = figure.along("line", results["line"])
        return [Panel(scenario.title, "α", "test accuracy (%)", [figure.level("standard", results["standard"]), line])]

    made = dataclasses.replace(figure4.FIGURE, name="tiny", scenarios={"small": (DIGITS,)}, jobs=jobs_of, panels=panels)
    monkeypatch.setenv("JSUBSPACE_DATA_DIR", data_dir)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["figure", "--seeds", "0", "--jobs", "2", "--output", "out"])
    figure.main([made])
    found = json.loads((tmp_path / "out" / "small" / "tiny.json").read_text())
    assert set(found["runs"]) == {"digits/standard/seed0", "digits/line/seed0"}
    assert found["command"] == "python -m experiments.tiny --scale=small --seeds 0"
    standard, line = found["panels"][0]["series"]
    results = json.loads((tmp_path / "runs/figures/digits/line/seed0/results.json").read_text())
    assert line["x"] == [0.0, 0.5, 1.0]
    assert line["y"] == [[row["accuracy"] for row in results["points"]]]
    assert standard["x"] is None
    assert f"| line | 1 | {line['y'][0][0]:.4g} |" in (tmp_path / "out/small/tiny.md").read_text()
    assert (tmp_path / "out/small/tiny.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "out/small/tiny.pdf").read_bytes()[:4] == b"%PDF"
    figure.main([made])
    assert json.loads((tmp_path / "out" / "small" / "tiny.json").read_text()) == found
    monkeypatch.setattr(sys, "argv", ["figure", "--seeds", "0", "1", "--plot"])
    with pytest.raises(UsageError, match=r"digits/standard/seed1 is not finished"):
        figure.main([made])


def scored(kind, accuracy, *roles, alpha=None):
    return {"name": "as you like", "kind": kind, "roles": list(roles), "alpha": alpha, "accuracy": accuracy}


def together(kind, accuracy):
    return {"name": "as you like", "kind": kind, "mean_probability": {"accuracy": accuracy}}


def test_rows_are_read_by_their_kind_and_roles_whatever_their_names():
    line = {
        "points": [
            scored("grid", 0.1, "end", alpha=0.0),
            scored("grid", 0.2, alpha=0.25),
            scored("grid", 0.3, "center", alpha=0.5),
            scored("grid", 0.4, alpha=0.75),
            scored("grid", 0.5, "end", alpha=1.0),
            scored("random", 0.6, alpha=0.7),
            scored("random", 0.8, alpha=0.2),
            scored("listed", 0.9, alpha=float(np.float32(1.05))),
        ],
        "ensembles": [
            together("ends", 0.91),
            together("pair", 0.92),
            together("random", 0.93),
            together("listed", 0.94),
        ],
    }
    assert figure.along("line", [line]) == Series("line", [[0.1, 0.2, 0.3, 0.4, 0.5]], [0.0, 0.25, 0.5, 0.75, 1.0])
    assert figure.ensembles_along("line", [line]).y == [[0.91, 0.92, 0.3, 0.92, 0.91]]
    assert figure.level("line", [line]).y == [[0.3]]
    assert figure.ensemble(line)["accuracy"] == 0.91
    assert figure.ensemble(line, "listed")["accuracy"] == 0.94
    assert figure12._at(line, 1.05) == 0.9
    assert appendix_averages._mean_of("drawn", [line], "random").y == [[pytest.approx(0.7)]]


def test_tables_have_mean_and_standard_deviation_over_seeds():
    panel = Panel(
        "title", "m", "accuracy", [Series("a", [[0.5], [0.7]]), Series("b", [[0.1, 0.2], [0.3, 0.6]], [2, 6])]
    )
    assert plots.table(panel).splitlines() == [
        "| title: accuracy | seeds | m 2 | m 6 |",
        "| --- | --- | --- | --- |",
        "| a | 2 | 0.6000 ± 0.1414 | 0.6000 ± 0.1414 |",
        "| b | 2 | 0.2000 ± 0.1414 | 0.4000 ± 0.2828 |",
    ]


@pytest.mark.parametrize("path", RECORDED, ids=[f"{path.parent.name}-{path.stem}" for path in RECORDED])
def test_recorded_tables_are_of_the_recorded_numbers(path):
    """Nothing recorded has been edited by hand on one side."""
    found = json.loads(path.read_text())
    made = {made.name: made for made in FIGURES}[found["figure"]]
    panels = [redraw.panel_of(panel) for panel in found["panels"]]
    text = path.with_suffix(".md").read_text()
    for panel in panels:
        assert made.table(panel) in text
    assert found["command"] in text
    for run in found["runs"]:
        assert run in found["trainings"]


def test_recorded_figures_are_drawn_again_and_their_numbers_stay(tmp_path, monkeypatch):
    """One of each kind: planes, curves, methods side by side, and barriers. Only pictures are written."""
    names = ["figure2", "finetune", "methods", "existing"]
    monkeypatch.setattr(sys, "argv", ["redraw", *names, f"--output={tmp_path}"])
    redraw.main()
    drawn = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.suffix for path in drawn} == {".png", ".pdf"}
    assert {path.stem for path in drawn} == {"figure2", "finetune", "comparison", *redraw.KINDS}
    for path in drawn:
        recorded = REPOSITORY / "experiments" / "results" / path
        if path.suffix == ".png":  # A picture of other sizes was drawn by another program.
            assert png_size(tmp_path / path) == png_size(recorded)
    monkeypatch.setattr(sys, "argv", ["redraw", "figure99", f"--output={tmp_path}"])
    with pytest.raises(UsageError, match="no recorded figure has the name 'figure99'"):
        redraw.main()


def test_pictures_say_what_bands_and_bars_are_and_have_two_columns_at_most(tmp_path, monkeypatch):
    """A phone shows 390 pixels, so three panels side by side have letters that nobody reads."""
    kept = []
    monkeypatch.setattr(plots, "save", lambda figure, path: kept.append(figure))
    monkeypatch.setattr(sys, "argv", ["redraw", f"--output={tmp_path}"])
    for name, draw in redraw.FIGURES.items():
        if name not in ("methods", "existing"):
            draw(redraw.RESULTS, tmp_path)
            figure, (width, _) = kept[-1], kept[-1].get_size_inches()
            assert width <= 6, name
            words = [legend.get_title().get_text() for legend in figure.legends]
            words += [figure.get_supxlabel()]
            if name not in ("figure2", "appendix_samples"):  # one seed, which has neither bands nor bars
                assert "one standard deviation" in "".join(words), name
    plots.pyplot().close("all")


def png_size(path):
    return struct.unpack(">II", path.read_bytes()[16:24])


def test_a_figure_made_anew_is_compared_number_by_number(tmp_path, monkeypatch, capsys):
    path = REPOSITORY / "experiments" / "results" / "figures" / "small" / "figure5.json"
    recorded = json.loads(path.read_text())
    assert reproduced.greatest_difference(recorded, recorded)[0] == 0

    new = json.loads(path.read_text())
    new["command"] = new["command"].replace("--seeds 0 1 2", "--seeds 2")
    for panel in new["panels"]:
        for series in panel["series"]:
            series["y"] = series["y"][2:]
    difference, place, count = reproduced.greatest_difference(new, recorded)
    assert difference == 0
    assert count * 3 == reproduced.greatest_difference(recorded, recorded)[2]
    new["panels"][0]["series"][0]["y"][0][-1] += 0.25
    difference, place, _ = reproduced.greatest_difference(new, recorded)
    assert difference == pytest.approx(0.25)
    assert new["panels"][0]["series"][0]["label"] in place
    (tmp_path / "figure5.json").write_text(json.dumps(new))
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", ["reproduced", str(tmp_path / "figure5.json")])
    with pytest.raises(SystemExit) as end:
        reproduced.main()
    assert end.value.code == 1
    assert "seeds [2]: the greatest difference is 0.25" in capsys.readouterr().out

    new["panels"][0]["series"][0]["y"][0][-1] = math.nan
    (tmp_path / "figure5.json").write_text(json.dumps(new))
    with pytest.raises(SystemExit) as end:
        reproduced.main()
    assert end.value.code == 1
    assert "the greatest difference is nan" in capsys.readouterr().out

    del new["panels"][0]["series"][0]
    with pytest.raises(UsageError, match="is in one of the figures and not in the other"):
        reproduced.greatest_difference(new, recorded)
    with pytest.raises(UsageError, match="No seed is in both"):
        reproduced.greatest_difference(new | {"command": new["command"].replace("--seeds 2", "--seeds 7")}, recorded)
    plane = json.loads(path.with_name("figure2.json").read_text())
    with pytest.raises(UsageError, match="figure2 shows planes"):
        reproduced.greatest_difference(plane, plane)
    with pytest.raises(UsageError, match="Give two files of the same figure"):
        reproduced.greatest_difference(new | {"command": "python -m experiments.figure6 --seeds 2"}, recorded)


PROGRAM = """HloModule step
%d (a: f32[8], i: s32[]) -> f32[2] {
  %a = f32[8] parameter(0)
  %i = s32[] parameter(1)
  ROOT %s = f32[2] dynamic-slice(%a, %i), dynamic_slice_sizes={2}
}
ENTRY %main (p: f32[8], q: f32[8]) -> f32[2] {
  %p = f32[8] parameter(0)
  %q = f32[8] parameter(1)
  %start = (f32[8]{0:T(256)S(1)}, f32[8]{0:T(256)}) copy-start(%p)
  %done = f32[8]{0:T(256)S(1)} copy-done(%start)
  %f = f32[8] fusion(%done, %q), kind=kLoop, calls=%c, metadata={op_name="jit(step)/optimizer/add"}
  %i = s32[] constant(1)
  ROOT %n = f32[2] fusion(%f, %i), kind=kLoop, calls=%d, metadata={op_name="jvp(ResNet)/stem/mul"}
}
"""


def test_bytes_of_a_program_are_accounted_for_by_kind():
    found = account.account(PROGRAM)
    # A copy into fast memory reads main memory once, and what reads the copy does not. Of an operand that is sliced, the slice
    # is read.
    assert found == {"copy-done": (1, 64, 32), "fusion: add": (1, 96, 64), "network": (1, 8 + 8 + 4, 20)}
    lines = account.table(found, found | {"network": account.Use(2, 1_000_064, 2_000_064)}).splitlines()
    assert lines[2] == "| network | 0.0 | 1 | 1.0 | 2 | +1.0 | +2.0 |"
    assert lines[-1] == "| total | 0.0 | 3 | 1.0 | 4 | +1.0 | +2.0 |"
    with pytest.raises(UsageError, match="not the text of a compiled program"):
        account.account("nothing")


def test_the_readme_has_the_claims_as_the_recorded_figures_give_them():
    readme = (REPOSITORY / "experiments" / "README.md").read_text()
    shown = readme.partition(claims.START)[2].partition(claims.END)[0]
    assert shown == claims.table(REPOSITORY / "experiments" / "results" / "figures" / "small")
    shown = readme.partition(claims.TUNED_START)[2].partition(claims.TUNED_END)[0]
    assert shown == claims.tuned_table(REPOSITORY / "experiments" / "results" / "budget")
    guide = (REPOSITORY / "docs" / "center.md").read_text(encoding="utf-8")
    shown = guide.partition(claims.GAINS_START)[2].partition(claims.GAINS_END)[0]
    assert shown == claims.gains(REPOSITORY / "experiments" / "results" / "budget")


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.01, 0.012, 0.009], "holds"),
        ([-0.01, -0.012, -0.009], "does not hold"),
        ([0.01, -0.012, 0.005], "open"),
        ([0.01, 0.02, 0.03], "open"),  # 3.5 standard errors of three seeds are not enough, but of four they are
        ([0.01, 0.02, 0.03, 0.02], "holds"),
        ([0.01], "open"),  # one seed tells nothing
    ],
)
def test_a_claim_holds_if_its_t_interval_is_above_zero(values, verdict):
    measured = Measured("", np.array(values))
    assert measured.verdict == verdict
    expected = stats.ttest_1samp(values, 0).pvalue if len(values) > 1 else 1
    assert measured.p_value == pytest.approx(expected, rel=1e-6)
    assert (measured.p_value < 0.05) == (verdict != "open")


def test_a_dagger_marks_what_survives_holms_correction():
    """The verdict stays: Holm's correction refuses it among many numbers."""
    measured = Measured("gain", np.array([0.01, 0.012, 0.009]))
    assert measured.words(claims.holm([measured.p_value])).endswith(": holds †")
    assert measured.words(claims.holm([measured.p_value, *[0.5] * 30])).endswith(": holds")


def test_early_stopping_by_validation_is_not_drawn_with_test_accuracies():
    tested, validated = ({"early_stopping": {"accuracy": 0.9, "tested_on": name}} for name in ("test", "validation"))
    assert figure8.early_stopping([0.4], [[tested, tested]]).label == "early stopping"
    with pytest.raises(UsageError, match="early_stopping=test"):
        figure8.early_stopping([0.4], [[tested, validated]])
