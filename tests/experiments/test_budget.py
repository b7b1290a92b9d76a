"""The study: what it declares is possible, validation images alone choose, the record resumes it, and its tables say what is missing."""

import dataclasses
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import job_settings
from places import REPOSITORY
from scipy import stats

from experiments import budget as program
from experiments.lib import budgets, crew, forecast, jobs, over_seeds, study_picture, study_tables, tuned_claims
from experiments.lib.study import Cell
from experiments.lib.study_record import Record, settings_of
from jsubspace import runs
from jsubspace.errors import PREEMPTED, UsageError
from jsubspace.runs import config, limits
from jsubspace.runs import results as run_results

SHORT_CELLS = {"rates": (0.1, 0.2), "decays": (1e-4,), "seeds": (0, 1, 2)}
SMALL = dataclasses.replace(budgets.SMALL[0], methods=(budgets.STANDARD, budgets.LINE), **SHORT_CELLS)
MLP = {"model.name": "mlp", "model.depth": 1, "model.width": 4}


@pytest.mark.parametrize("scale", budgets.SCALES)
def test_every_declared_run_is_possible_and_has_a_name_of_its_own(scale):
    names = set()
    for budget in (made for each in budgets.SCALES[scale] for made in (each, each.short(2))):
        for method in budget.methods:
            choosing = list(budget.choosing(method).values())
            reported = [budget.reported(method, cell) for cell in (budget.cells if choosing else budget.cells[:1])]
            every = [*choosing, *(job for found in reported for job in found)]
            assert len({job.name for job in every}) == len(every)
            assert names.isdisjoint(job.name for job in every)
            names |= {job.name for job in every}
            for job in (*choosing[-1:], every[-1]):
                limits.validate(job_settings.of_job(job))
            seeds = {job.seed for job in choosing}
            assert seeds.isdisjoint(job.seed for found in reported for job in found)
            assert all("data.num_validation" in dict(job.details) for job in choosing)
            assert all("data.num_validation" not in dict(job.details) for found in reported for job in found)


def test_the_control_has_the_rate_and_decay_of_a_midpoint():
    standard, control = (SMALL.reported(method, Cell(0.2, 5e-4))[0] for method in (budgets.STANDARD, budgets.CONTROL))
    assert [settings_of(standard)[name] for name in ("optimizer.learning_rate", "optimizer.weight_decay")] == [
        0.2,
        5e-4,
    ]
    assert [settings_of(control)[name] for name in ("optimizer.learning_rate", "optimizer.weight_decay")] == [0.1, 1e-3]


def measured(nll, accuracy, validation=None, ensemble=None):
    scores = {"accuracy": accuracy, "nll": nll, "ece": 0.02, "ece_debiased": 0.01}
    return {
        "test": scores,
        "validation": None if validation is None else scores | {"nll": validation},
        "ensemble": None if ensemble is None else scores | {"accuracy": ensemble},
        "ends": ensemble and 0.5,
        "cosine_squared": ensemble and 0.01,
        "distance": ensemble and 30.0,
    }


class Fake:
    """Runs that take no time: a run's NLL follows from its rate, and a line diverges at the larger rate."""

    def __init__(self, monkeypatch):
        self.trained = []
        self.fail_after, self.lost = None, set()
        monkeypatch.setattr(crew, "finish", self.finish)
        monkeypatch.setattr(crew, "trained", lambda declared, root: {job.name: self.made(job) for job in declared})
        monkeypatch.setattr(jobs, "results", self.results)
        monkeypatch.setattr("experiments.lib.study_record.measured", lambda result: result["measured"])
        monkeypatch.setattr(program.prepare, "prepare", lambda name: None)

    def finish(self, declared, root, at_once, after):
        for job in declared:
            if self.fail_after is not None and len(self.trained) >= self.fail_after:
                raise KeyboardInterrupt
            self.trained.append(job.name)
            self.lost.discard(job.name)
            after(job)

    def made(self, job):
        if job.name not in self.trained:
            return {}
        row = {"commit": "abc", "seconds": 2.0, "cpu_seconds": 3.0, "machine": "one"}
        return row | ({"diverged": "error: not finite"} if self.diverges(job) else {})

    def diverges(self, job):
        return job.method == "line" and settings_of(job)["optimizer.learning_rate"] == 0.2

    def results(self, job, root):
        if self.diverges(job) or job.name not in self.trained or job.name in self.lost:
            return None
        rate = settings_of(job).get("optimizer.learning_rate", 0.1)  # Two networks are not trained again.
        accuracy = 0.9 + 0.01 * job.seed - 0.1 * rate  # The test set would choose the smaller rate.
        found = measured(rate, accuracy, 1 - rate, accuracy + 0.02 if job.method == "line" else None)
        return {"seconds": {"training": 1.0}, "versions": {"jax": "0"}, "devices": "1 x cpu", "measured": found}


@pytest.fixture
def fake(monkeypatch):
    made = Fake(monkeypatch)
    monkeypatch.setattr(crew, "trained", lambda declared, root: {j.name: r for j in declared if (r := made.made(j))})
    return made


def study(tmp_path, *given):
    return program.Study(given, Record(tmp_path / "runs.jsonl"), tmp_path / "runs", 1, "small")


def test_validation_images_choose_and_a_run_that_diverges_is_recorded_and_never_chosen(fake, tmp_path):
    study(tmp_path, SMALL).train()
    record = Record(tmp_path / "runs.jsonl")
    standard, line = (study_tables.state(SMALL, method, record) for method in SMALL.methods)
    assert standard.cell == Cell(0.2, 1e-4)
    assert line.cell == Cell(0.1, 1e-4)
    assert line.validation == {Cell(0.1, 1e-4): 0.9, Cell(0.2, 1e-4): None}
    assert len(fake.trained) == 2 * (2 + 3)
    assert [row["seed"] for row in standard.rows.values()] == [0, 1, 2]


def test_a_study_resumes_from_its_record_alone(fake, tmp_path):
    fake.fail_after = 4
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, SMALL).train()
    before = list(fake.trained)
    fake.fail_after, fake.trained[:] = None, []  # A fresh clone has no folder of a run.
    study(tmp_path, SMALL).train()
    assert len(before) + len(fake.trained) == 2 * (2 + 3)
    assert set(before).isdisjoint(fake.trained)
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 10


def test_a_run_that_ended_before_a_kill_is_recorded_and_a_run_without_results_is_trained_again(fake, tmp_path):
    kept, lost = (job.name for job in SMALL.choosing(budgets.STANDARD).values())
    fake.trained[:], fake.lost = [kept, lost], {lost}
    study(tmp_path, dataclasses.replace(SMALL, methods=(budgets.STANDARD,))).train()
    assert fake.trained.count(kept) == 1
    assert fake.trained.count(lost) == 2
    assert len(fake.trained) == 3 + 3


def test_the_rows_of_two_machines_are_put_together(fake, tmp_path):
    first, second = (dataclasses.replace(SMALL, methods=(method,)) for method in SMALL.methods)
    (tmp_path / "other").mkdir()
    study(tmp_path, first).train()
    study(tmp_path / "other", second).train()
    record = Record(tmp_path / "runs.jsonl")
    assert record.take(tmp_path / "other" / "runs.jsonl") == 5
    assert record.take(tmp_path / "other" / "runs.jsonl") == 0
    fake.trained.clear()
    study(tmp_path, SMALL).train()
    assert fake.trained == []


def test_a_row_with_other_settings_and_a_damaged_line_are_refused(fake, tmp_path):
    study(tmp_path, SMALL).train()
    path = tmp_path / "runs.jsonl"
    text = path.read_text()
    path.write_text(text.replace('"optimizer.num_epochs": 60', '"optimizer.num_epochs": 61', 1))
    with pytest.raises(UsageError, match=r"another config.optimizer.num_epochs \(61\) than the study declares \(60\)"):
        study(tmp_path, SMALL).train()
    path.write_text(text[:-9])
    with pytest.raises(UsageError, match=r"line 10 of .* is no row of a run"):
        Record(path)


def test_tables_have_paired_t_intervals_and_say_what_is_missing_and_what_is_at_the_edge(fake, tmp_path):
    made = study(tmp_path, SMALL, budgets.SMALL[1])
    fake.fail_after = 10
    with pytest.raises(KeyboardInterrupt):
        made.train()
    text = made.write().read_text()
    accuracy = np.array([0.88, 0.89, 0.90])
    low, high = stats.t.interval(0.95, 2, accuracy.mean(), stats.sem(accuracy))
    (row,) = (line for line in text.splitlines() if line.startswith("| standard | 0.2*, 0.0001 | 3 |"))
    assert f"{accuracy.mean():.4f} ({low:.4f} to {high:.4f})" in row
    assert "The chosen rate is the largest or the smallest of the grid." in text
    assert "| line | 3 | +0.0100 (+0.0100 to +0.0100) | -0.1000 (-0.1000 to -0.1000) |" in text
    assert "| line | **0.900** | diverged |" in text
    assert f"| {SMALL.title} | 4 of 4 | 6 of 6 | complete |" in text
    assert f"| {budgets.SMALL[1].title} | 0 of 56 | 0 of 35 | all methods |" in text


def test_the_picture_has_the_paired_differences_of_complete_methods(fake, tmp_path, monkeypatch):
    panels = {}
    monkeypatch.setattr(
        study_picture.plots, "save", lambda figure, _: panels.update({a.get_title(): a for a in figure.axes})
    )
    made = study(tmp_path, SMALL, budgets.SMALL[1])
    assert made.draw() is None
    fake.fail_after = 10
    with pytest.raises(KeyboardInterrupt):
        made.train()
    rows = [json.loads(line) for line in made.record.path.read_text().splitlines()]
    for row in (row for row in rows if "test" in row):
        row["test"]["accuracy"] += 0.01 * row["seed"] * row["run"].count("line")
    made.record.path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert study_picture.draw(made.whole, Record(made.record.path), tmp_path / "budget")
    low, high = stats.t.interval(0.95, 2, 2, stats.sem([1, 2, 3]))  # The rate alone gives one per cent.
    axes = panels["accuracy minus standard's (%)"]
    (bar,) = (line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-")
    np.testing.assert_allclose(bar, [low, high])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["digits\n60 epochs"]
    assert axes.get_xlim()[1] >= high
    made.record.path.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    assert not study_picture.draw(made.whole, Record(made.record.path), tmp_path / "budget")


def test_label_smoothing_is_an_arrow_where_it_would_hide_the_others(fake, tmp_path, monkeypatch):
    panels = {}
    monkeypatch.setattr(
        study_picture.plots, "save", lambda figure, _: panels.update({a.get_title(): a for a in figure.axes})
    )
    made = study(tmp_path, dataclasses.replace(SMALL, methods=(budgets.STANDARD, budgets.LINE, budgets.SMOOTHED)))
    made.train()
    rows = [json.loads(line) for line in made.record.path.read_text().splitlines()]
    for row in (row for row in rows if "test" in row):
        row["test"]["ece_debiased"] += 0.001 * row["run"].count("line") + 0.1 * row["run"].count("label_smoothing")
    made.record.path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert study_picture.draw(made.whole, Record(made.record.path), tmp_path / "budget")
    markers = {line.get_marker(): line.get_xdata()[0] for line in panels["debiased ECE minus standard's"].lines}
    assert markers[">"] == panels["debiased ECE minus standard's"].get_xlim()[1] < 0.002
    assert markers["o"] == pytest.approx(0.001)


def test_claims_at_tuned_rates_are_differences_of_finished_methods_with_one_correction(fake, tmp_path):
    noisy = dataclasses.replace(budgets.SMALL[3], methods=budgets.METHODS, **SHORT_CELLS)
    clean = dataclasses.replace(SMALL, methods=budgets.METHODS)
    studied = (clean, noisy, budgets.SMALL[8])
    nothing = tuned_claims.table(studied, Record(tmp_path / "nothing.jsonl"))
    assert nothing.splitlines()[0] == "These budgets are not complete yet:"
    made = study(tmp_path, clean, noisy)
    fake.fail_after = 4 * 5 + 2 + 2  # One seed of the fifth method of the first budget is missing.
    with pytest.raises(KeyboardInterrupt):
        made.train()
    text = tuned_claims.table(studied, made.record)
    (row,) = (line for line in text.splitlines() if "more accurate than standard training |" in line)
    assert "line − standard +0.0100 ± 0.0000: holds †" in row
    assert "six endpoints" not in text
    fake.fail_after = None
    made.train()
    text = tuned_claims.table(studied, made.record)
    assert "six endpoints: ensemble of the ends − center" not in text  # Only a line has an ensemble here.
    assert "line: ensemble of the ends − center +0.0200 ± 0.0000: holds †" in text
    (row,) = (line for line in text.splitlines() if "to label noise than label smoothing" in line)
    assert noisy.title in row
    assert text.splitlines()[-1] == f"- {budgets.SMALL[8].title}"


def test_the_forecast_counts_missing_runs_and_prefers_recorded_seconds(fake, tmp_path):
    made = study(tmp_path, SMALL)
    assert forecast.seconds_of_run(SMALL, budgets.LINE, made.record) == pytest.approx(15 + 720 * 0.015)
    fake.fail_after = 5
    with pytest.raises(KeyboardInterrupt):
        made.train()
    assert forecast.seconds_of_run(SMALL, budgets.STANDARD, made.record) == 3
    last = forecast.table([SMALL], made.record).splitlines()[1]
    assert last.split()[-4:] == ["10", "5", "0.0", "0.0"]
    whole = forecast.table(budgets.SMALL, Record(tmp_path / "nothing.jsonl"))
    total = float(whole.splitlines()[-2 if "more than" in whole else -1].split()[1])
    assert ("more than the 15 core-hours" in whole) == (total > 15)


def test_a_run_that_diverges_is_a_result_if_the_caller_says_so(monkeypatch, tmp_path):
    code = "import sys; print('error: the loss of step 7 is nan'); sys.exit(3)"
    monkeypatch.setattr(jobs.Job, "command", lambda job, root: ["-c", code])
    (job,) = SMALL.reported(budgets.STANDARD, Cell(0.2, 1e-4))[:1]
    with pytest.raises(UsageError, match="exit code 3: error: the loss of step 7 is nan"):
        crew.finish([job], tmp_path, 1)
    seen = []
    crew.finish([job], tmp_path, 1, seen.append)
    assert seen == [job]
    row = crew.trained([job], tmp_path)[job.name]
    assert row["diverged"] == "error: the loss of step 7 is nan"
    assert row["cpu_seconds"] >= 0


def test_a_run_that_ended_unnoted_is_started_again_and_noted(monkeypatch, tmp_path):
    """The program was killed between the results of the run and its line in the crew's file."""
    monkeypatch.setattr(jobs.Job, "command", lambda job, root: ["-c", "print('holds the finished run')"])
    monkeypatch.setattr(jobs, "results", lambda job, root: {"points": []})
    (job,) = SMALL.reported(budgets.STANDARD, Cell(0.2, 1e-4))[:1]
    seen = []
    for _ in range(2):
        crew.finish([job], tmp_path, 1, seen.append)
        assert seen == [job]
    assert job.name in crew.trained([job], tmp_path)


@pytest.fixture
def gpu(monkeypatch, data_dir, tmp_path):
    """The scale for a GPU with two steps, on the digits with a small perceptron, trained in this process."""
    monkeypatch.setenv("JSUBSPACE_DATA_DIR", data_dir)
    small = {
        "data.name": "digits",
        "data.batch_size": 8,
        **MLP,
        "evaluation.num_points": 3,
        "evaluation.num_resamples": 20,
    }

    def finish(declared, root, at_once, after):
        for job in jobs.in_order(declared):
            if jobs.results(job, root) is None:
                settings = job_settings.of_job(job)
                for field, given in job.fields(root).items():
                    config.change(settings, field, str(given))
                runs.train(settings, root / job.name)
                row = {"run": job.name, "commit": "abc", "seconds": 1.0, "cpu_seconds": 1.0, "machine": "one"}
                with (root / "trained.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
            after(job)

    monkeypatch.setattr(crew, "finish", finish)

    def made(methods, seeds):
        budget = budgets.GPU[2]
        settings = tuple((dict(budget.scenario.settings) | small).items())
        scenario = dataclasses.replace(budget.scenario, settings=settings)
        chosen = tuple(method for method in budget.methods if method.name in methods)
        return dataclasses.replace(budget, scenario=scenario, methods=chosen, seeds=seeds)

    def give(*methods, seeds=(0, 1)):
        monkeypatch.setitem(budgets.SCALES, "gpu", (made(methods, seeds),))
        monkeypatch.setattr(sys, "argv", ["budget", "--scale=gpu", "--steps=2", f"--runs={tmp_path}"])
        program.main()
        return Record(tmp_path / "runs.jsonl")

    return give


def test_two_steps_at_the_scale_for_a_gpu_leave_results_alone(gpu, tmp_path, capsys):
    gpu("standard", "two_independent")
    folders = [path.parent for path in tmp_path.rglob("results.json")]
    assert len(folders) == 4
    assert all([path.name for path in folder.iterdir()] == ["results.json"] for folder in folders)
    assert "two independent networks" in (tmp_path / "budget.md").read_text()
    said = capsys.readouterr().out
    assert "missing" in said
    for folder in folders:
        assert run_results.is_finished(run_results.read(folder))


@pytest.mark.slow
def test_two_steps_of_every_run_at_the_scale_for_a_gpu(gpu, tmp_path):
    methods = [method.name for method in budgets.GPU_METHODS]
    record = gpu(*methods, seeds=budgets.GPU_SEEDS)
    (budget,) = (each.short(2) for each in budgets.SCALES["gpu"])
    for method in budget.methods:
        state = study_tables.state(budget, method, record)
        assert len(state.values("accuracy")) == 3
        assert (len(state.values("accuracy", "ensemble")) == 3) == (not method.name.startswith("standard"))


RUN_OF_A_SLICE = """
import dataclasses, sys
from experiments import budget
from experiments.lib import budgets
from jsubspace import program

made = budgets.GPU[1]
settings = tuple((dict(made.scenario.settings) | {settings}).items())
scenario = dataclasses.replace(made.scenario, settings=settings, num_epochs={num_epochs})
budgets.SCALES["gpu"] = (dataclasses.replace(made, scenario=scenario, methods=(budgets.LINE,), seeds=(0,)),)
sys.argv = ["budget", "--scale=gpu", *{options}]
program.run(budget.main)
"""


def slice_of_a_queue(tmp_path, settings, num_epochs, *options):
    """A process of the command with one line as its only run."""
    options = [f"--runs={tmp_path}", f"--record={tmp_path}", *options]
    code = RUN_OF_A_SLICE.format(settings=settings, num_epochs=num_epochs, options=options)
    return subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_two_steps_of_the_papers_network_in_a_process_of_its_own(monkeypatch, fake_data, tmp_path):
    """cResNet20 on images of 28 x 28 pixels with 20 % random labels. Only the batches are smaller."""
    monkeypatch.setenv("JSUBSPACE_DATA_DIR", fake_data)
    done = slice_of_a_queue(tmp_path, {"data.batch_size": 8, "evaluation.num_points": 3}, 160, "--steps=2")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("results.json")
    found = run_results.read(path.parent)
    assert run_results.is_finished(found)
    assert (found["config"]["model"]["depth"], found["config"]["data"]["name"]) == (20, "fashion_mnist")
    assert [each.name for each in path.parent.iterdir()] == ["results.json"]


@pytest.mark.slow
def test_slices_of_minutes_save_and_the_next_slice_goes_on(monkeypatch, data_dir, tmp_path):
    """A run of hours: the command ends itself twice, and the second slice continues the first."""
    monkeypatch.setenv("JSUBSPACE_DATA_DIR", data_dir)
    settings = {"data.name": "digits", "data.batch_size": 8, **MLP, "log_every_steps": 100}
    steps = []
    for _ in range(2):
        done = slice_of_a_queue(tmp_path, settings, 100_000, "--minutes=0.6")
        assert done.returncode == PREEMPTED, done.stderr
        (folder,) = (path.parent for path in tmp_path.rglob("metrics.jsonl"))
        assert not (folder / "results.json").exists()
        steps.append(max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()))
    assert 0 < steps[0] < steps[1]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--budgets=nothing", "--budgets has nothing. It may have digits_60, "),
        ("--methods=nothing", "--methods has nothing. It may have standard, line, "),
        ("--jobs=0", "--jobs is 0. It must be more than 0."),
        ("--minutes=-1", "--minutes is -1.0. It must be more than 0."),
        ("--take=nowhere.jsonl", "there is no file nowhere.jsonl"),
    ],
)
def test_wrong_options_are_refused(monkeypatch, tmp_path, option, message):
    monkeypatch.setattr(sys, "argv", ["budget", option, "--list", f"--record={tmp_path}"])
    with pytest.raises(UsageError, match=message):
        program.main()


def test_a_part_of_the_study_is_trained_and_the_tables_show_the_whole(fake, monkeypatch, tmp_path):
    monkeypatch.setitem(budgets.SCALES, "small", (SMALL, dataclasses.replace(budgets.SMALL[1], methods=SMALL.methods)))
    options = ["budget", f"--record={tmp_path}", f"--runs={tmp_path}", "--budgets=digits_60", "--methods=line"]
    monkeypatch.setattr(sys, "argv", options)
    program.main()
    assert all(name.startswith("digits_60/line_") for name in fake.trained)
    text = (tmp_path / "budget.md").read_text()
    assert f"| {SMALL.title} | 2 of 4 | 3 of 6 | standard |" in text
    assert f"| {budgets.SMALL[1].title} | 0 of 16 | 0 of 10 | all methods |" in text


def test_the_speed_of_a_run_under_way_forecasts_its_budget(tmp_path, capsys):
    budget = budgets.GPU[0]
    (job, *_) = budget.reported(budgets.STANDARD, budget.cells[0])
    folder = tmp_path / "runs" / job.name
    folder.mkdir(parents=True)
    made = study(tmp_path, budget)
    assert not made.say_speed()
    assert "has logged no speed yet" in capsys.readouterr().out
    row = {"kind": "train", "step": 100, "epoch": 0.2, "loss": 1.0, "images_per_second": 12800.0}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert made.say_speed()
    minutes, count = 75040 / 100 / 60, 3 * len(budgets.GPU_METHODS)
    assert f"makes 100.0 steps per second: {minutes:.1f} minutes for 75040 steps" in (said := capsys.readouterr().out)
    assert f"{count * minutes / 60:.1f} hours for the {count} runs" in said


def test_minutes_end_the_program_as_a_signal_would(monkeypatch, fake, tmp_path):
    """The batch queue's next slice resumes. After the end, no timer is left that would end another program."""
    ended = []
    monkeypatch.setattr(program, "_end", lambda: ended.append(True) or True)
    monkeypatch.setitem(budgets.SCALES, "small", (SMALL,))
    options = ["budget", f"--record={tmp_path}", f"--runs={tmp_path}"]
    real = fake.finish
    for seconds, expected in ((0.01, 1), (30, 0)):
        ended.clear()
        monkeypatch.setattr(crew, "finish", lambda *given: (time.sleep(0.2), real(*given)))
        monkeypatch.setattr(sys, "argv", [*options, f"--minutes={seconds / 60}"])
        (tmp_path / "runs.jsonl").unlink(missing_ok=True)
        program.main()
        assert len(ended) == expected
    assert program.TIMER not in [thread.name for thread in threading.enumerate()]


def test_the_forecast_is_tried_again_until_a_run_has_a_speed():
    answers, done = [False, False, True, False], threading.Event()

    def act():
        if len(answers) == 2:
            done.set()
        return answers.pop(0)

    with program._every(0.001, act):
        assert done.wait(60)
    assert answers == [False]


@pytest.mark.parametrize("count", [3, 4, 5])
@pytest.mark.parametrize("own", [0.0, 1.0], ids=["pairs that are sums", "pairs with noise of their own"])
def test_intervals_of_pairs_that_share_networks_cover(count, own):
    """Pairs (0, 1), (1, 2), ..., (n - 1, 0): the interval of independent values would miss the mean in up to a third of the cases."""
    rng = np.random.default_rng(0)
    networks = rng.standard_normal((2000, count))
    pairs = networks + np.roll(networks, -1, axis=1) + own * rng.standard_normal((2000, count))

    def coverage(ring):
        intervals = (over_seeds.interval(values.tolist(), ring) for values in pairs)
        return np.mean([low <= 0 <= high for low, high in intervals])

    assert coverage(ring=True) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 2000)
    assert coverage(ring=False) < 0.9
    assert over_seeds.interval([0.1, 0.1], ring=True) is None


def test_two_independent_networks_have_the_intervals_of_pairs_that_share_networks(fake, tmp_path):
    (independent,) = (method for method in budgets.GPU_METHODS if method.kind == study_tables.INDEPENDENT)
    budget = dataclasses.replace(SMALL, methods=(budgets.STANDARD, independent), rates=(0.1,))
    made = study(tmp_path, budget)
    made.train()
    text = made.write().read_text()
    low, high = over_seeds.interval([0.89, 0.90, 0.91], ring=True)
    (row,) = (line for line in text.splitlines() if line.startswith("| two independent networks | 0.1, 0.0001 |"))
    assert f"0.9000 ({low:.4f} to {high:.4f})" in row


def test_a_method_that_extends_another_is_compared_with_it(fake, tmp_path):
    made = study(tmp_path, dataclasses.replace(SMALL, methods=(budgets.STANDARD, budgets.SIX, budgets.SIX_CENTER)))
    made.train()
    rows = [json.loads(line) for line in made.record.path.read_text().splitlines()]
    for row in rows:
        row["test"]["accuracy"] += 0.01 * row["seed"] * row["run"].count("six_center")
    made.record.path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = study_tables.report(made.whole, Record(made.record.path), "", "")
    low, high = stats.t.interval(0.95, 2, 0.01, stats.sem([0, 0.01, 0.02]))
    row = f"| {budgets.SIX_CENTER.title} − {budgets.SIX.title} | 3 | +0.0100 ({low:+.4f} to {high:+.4f}) |"
    assert row in text


def test_the_recorded_tables_are_of_the_recorded_rows_and_every_row_is_of_a_declared_run():
    folder = REPOSITORY / program.RECORDED / "budget"
    record = Record(folder / program.RUNS_FILE)
    text = (folder / "budget.md").read_text(encoding="utf-8")
    assert study_tables.report(budgets.SMALL, record, "The study at scale small", text.splitlines()[2][1:-1]) == text
    of_method = ((budget, method) for budget in budgets.SMALL for method in budget.methods)
    names = {
        job.name
        for budget, method in of_method
        for job in [
            *budget.choosing(method).values(),
            *(job for cell in budget.cells for job in budget.reported(method, cell)),
        ]
        if record.row(job) is not None
    }
    rows = [json.loads(line)["run"] for line in record.path.read_text(encoding="utf-8").splitlines()]
    assert sorted(rows) == sorted(names)
