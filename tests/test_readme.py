"""README is one page with true numbers, its code and the code of the guides runs, and the files that they name exist."""

import contextlib
import io
import json
import re
import statistics

import guides
import jax.numpy as jnp
import pytest
from places import REPOSITORY

from experiments.lib import budgets, study_tables
from experiments.lib.study_record import Record
from jsubspace.evaluation import bounds

GUIDES = sorted((REPOSITORY / "docs").glob("*.md"))
# Other tests execute the code of these pages and ask what it did: test_nnx_and_equinox, test_network_files,
# exchange/test_subspace_files, and the tests in tests/examples and tests/merging.
TESTED_ELSEWHERE = {
    "nnx_and_equinox.md", "export.md", "files.md", "language_models.md", "regression.md", "detection.md", "equinox_digits.md",
    "soups.md",
    "batch_norm_of_averages.md", "existing_networks.md",
}  # fmt: skip
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
WORDS = " ".join(README.split())
RESULTS = REPOSITORY / "experiments" / "results"


def recorded(name):
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def of_seeds(panel, label, place=0):
    """What each seed has at one place of a curve in a recorded figure."""
    (series,) = (series for series in panel["series"] if series["label"] == label)
    return [seed[place] for seed in series["y"]]


def mean(panel, label, place=0):
    return statistics.mean(of_seeds(panel, label, place))


def test_it_is_one_page():
    assert len(README.splitlines()) <= 130
    assert all(len(block.splitlines()) <= 30 for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    tables = re.findall(r"(?:^\|.*\n)+", README, re.MULTILINE)
    assert [len(table.splitlines()) for table in tables] == [2 + 8]


def test_the_example_prints_the_table_that_is_shown():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), names)
    assert names["endpoints"]["kernel"].shape == (2, 8, 3)
    assert not jnp.array_equal(*names["endpoints"]["kernel"])
    found = printed.getvalue().splitlines()
    for line, ours in zip(shown.splitlines(), found[: len(shown.splitlines())], strict=True):
        numbers = [float(number) for number in re.findall(r"\d+\.\d+", line)]
        assert [float(number) for number in re.findall(r"\d+\.\d+", ours)] == pytest.approx(numbers, abs=0.01)
        assert re.sub(r"[\d.]+", "#", line) == re.sub(r"[\d.]+", "#", ours)


def test_the_numbers_of_the_demo():
    (line,) = (
        row for row in recorded("demo/demo.json")["rows"] if (row["way"], row["predictor"]) == ("line", "midpoint")
    )
    better = line["accuracy"]["minus_standard"]
    low, high = better["over_seeds"]
    assert f"by {better['mean']:.3f} (95 % interval {low:.3f} to {high:.3f}, ten seeds)" in WORDS


def difference(name, method, score="accuracy", of="test"):
    """The mean over seeds of a method's score in the study minus standard training's, and its interval. See `study_tables.paired`."""
    (budget,) = (budget for budget in budgets.SMALL if budget.name == name)
    record = Record(RESULTS / "budget" / "runs.jsonl")
    states = {each.name: study_tables.state(budget, each, record) for each in budget.methods}
    values = list(study_tables.paired(states[method], states["standard"], score, of).values())
    assert len(values) == len(budget.seeds)
    return statistics.mean(values), *bounds.of_runs(values)


def shown(name, method, *score):
    mean, low, high = difference(name, method, *score)
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def test_the_numbers_of_the_study():
    clean = ("fashion_30", "fashion_120", "fashion_480", "perceptron_10", "perceptron_40", "digits_60")
    methods = ("line", "line_center", "six", "six_center")
    assert all(
        difference(name, method)[1] < 0 for name in clean for method in methods
    )  # None is shown to be more accurate.
    small, longer, longest, perceptron, its_longer, _ = (shown(name, "line") for name in clean)
    assert f"by {small} after 30 epochs on 2,000 images, by {longer} after 120 and by {longest} after 480" in WORDS
    assert f"for a perceptron by {perceptron} after 10 epochs and by {its_longer} after 40." in WORDS
    nll, error = (shown(clean[2], "line", score) for score in ("nll", "ece_debiased"))
    both = shown(clean[2], "line", "accuracy", "ensemble")
    assert f"its NLL differs by {nll}, its debiased calibration error by {error}" in WORDS
    assert f"and the accuracy of the ensemble of its ends by {both}." in WORDS
    assert f"a difference in accuracy is shown after 30 epochs alone, {shown(clean[0], 'line_center')}." in WORDS
    assert all(low < 0 < high for _, low, high in (difference(name, "line_center") for name in clean[1:]))
    digits, small, perceptron = noisy = ("digits_60_noise0.4", "fashion_120_noise0.4", "perceptron_10_noise0.4")
    assert f"a line differs by {shown(perceptron, 'line')} with the perceptron" in WORDS
    assert all(low < 0 < high for _, low, high in (difference(name, "line") for name in (digits, small)))
    digits, small, perceptron = (shown(name, "six") for name in noisy)
    assert f"by {digits} on the digits, by {small} on 2,000 images and by {perceptron} with the perceptron." in WORDS


def test_every_budget_of_the_study_is_complete():
    record = Record(RESULTS / "budget" / "runs.jsonl")
    assert len(budgets.SMALL) == 9
    for budget in budgets.SMALL:
        assert all(len(study_tables.state(budget, each, record).rows) == len(budget.seeds) for each in budget.methods)
    assert "of nine budgets)" in WORDS


def test_what_the_page_of_the_demo_says_about_the_study():
    page = " ".join((REPOSITORY / "docs" / "demo.md").read_text(encoding="utf-8").split())
    for name, method in (("digits_60_noise0.4", "line"), ("digits_60_noise0.4", "six"), ("digits_60", "line")):
        assert f"by {shown(name, method)}" in page


def test_the_numbers_of_the_figures():
    accuracy, ece, _ = recorded("figures/small/figure10.json")["panels"]
    behind = [mean(accuracy, "standard", i) - mean(accuracy, "line", i) for i in range(4)]
    assert f"accuracy is {behind[0]:.3f} lower after 60 epochs, and after 240 epochs no difference is shown" in WORDS
    pairs = zip(of_seeds(accuracy, "line", 2), of_seeds(accuracy, "standard", 2), strict=True)
    low, high = bounds.of_runs([line - standard for line, standard in pairs])
    assert low < 0 < high
    ratios = [100 * mean(ece, "line", i) / mean(ece, "standard", i) for i in range(4)]
    assert f"is {min(ratios):.0f} to {max(ratios):.0f} % of standard training's" in WORDS
    (ensembles,) = recorded("figures/small/figure5.json")["panels"]
    independent, ends = (mean(ensembles, label) for label in ("two independent", "line"))
    assert f"a better ensemble there ({independent:.3f}) than the ends of a line ({ends:.3f})" in WORDS
    assert f"({100 * ends:.1f} and {100 * independent:.1f} %)" in (REPOSITORY / "docs" / "paper.md").read_text(
        encoding="utf-8"
    )


def test_the_numbers_of_the_compiled_step():
    rows = recorded("bench_tpu/rows.json")
    line, standard = (rows[f"resnet50/{name}/replicated"] for name in ("line", "standard"))
    assert f"{line['flops'] / standard['flops']:.4f} times the flops" in WORDS
    assert f"{line['wire'] / standard['wire']:.4f}" == "1.0000"


def test_the_number_of_convolutions_on_a_cpu():
    rows = recorded("bench_cpu/rows.json")["rows"]
    assert f"PyTorch needs {rows['cresnet20/torch']['over_standard'][0]:.2f} of XLA's time" in WORDS


def test_the_count_of_the_claims():
    record = (REPOSITORY / "experiments" / "README.md").read_text(encoding="utf-8")
    table = record.partition("<!-- claims")[2].partition("<!-- end of claims -->")[0]
    verdicts = [line.rstrip(" |").rpartition(" | ")[2] for line in table.splitlines() if line.startswith("| ")][2:]
    holds, partly = verdicts.count("holds"), verdicts.count("partly")
    assert f"{holds} of the paper's {len(verdicts)} claims hold, {partly} hold in part" in WORDS
    assert set(verdicts) - {"holds", "partly"} == {"open", "does not hold", "open, or does not hold"}


@pytest.mark.parametrize("guide", sorted(set(guides.with_code()) - TESTED_ELSEWHERE))
def test_the_code_of_a_guide_runs(guide, tmp_path, monkeypatch):
    """All blocks of a page, one after the other, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    guides.execute(guide)


def test_links_of_guides_exist():
    for path in GUIDES:
        for link in re.findall(r"\]\(([\w/.]+)[#)]", path.read_text(encoding="utf-8")):
            if (REPOSITORY / "jsubspace").is_dir() or not link.startswith(
                "../jsubspace/"
            ):  # .ci/test_wheel has no sources
                assert (path.parent / link).exists(), (path, link)


def test_links_of_the_readme_exist():
    for link in re.findall(r"\]\(([\w/.]+)[#)]", README):
        assert (REPOSITORY / link).exists(), link
