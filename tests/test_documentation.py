"""The documentation is whole: every page has a place, every public name an entry, and every number a recorded file.

``make docs`` builds the pages, and treats warnings and dead links as errors. Nothing is built here.
"""

import json
import re
import runpy
import statistics

import guides
import pytest
from places import REPOSITORY

DOCS = REPOSITORY / "docs"
RESULTS = REPOSITORY / "experiments" / "results"
REFERENCE = runpy.run_path(str(DOCS / "reference.py"))
ADDRESS = runpy.run_path(str(REPOSITORY / ".ci" / "address.py"))

TO_COME = {"existing_networks", "batch_norm_of_averages", "speed"}
"""Pages that docs/index.md has a place for. The build leaves them out until they are written."""


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def name_of(path):
    return path.relative_to(DOCS).with_suffix("").as_posix()


def listed():
    """The pages of ``docs/`` in the tables of contents, each as often as it is listed."""
    names = []
    for path in DOCS.rglob("*.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            lines = [line.strip() for line in block.splitlines()]
            entries = [re.sub(r"^.*<(.*)>$", r"\1", line) for line in lines if line and not line.startswith(":")]
            names += [name_of(path.parent / entry) for entry in entries if not entry.startswith("../")]
    return names


def test_every_page_has_one_place():
    """If not: add the page to one of the tables of contents in docs/index.md."""
    written = {name_of(path) for path in DOCS.rglob("*.md")} - {"index"}
    entries = listed()
    assert len(entries) == len(set(entries))
    assert written - set(entries) == set()
    assert set(entries) - written <= TO_COME


def test_every_public_name_has_an_entry_in_the_reference():
    assert REFERENCE["missing"]() == {}
    documented = REFERENCE["documented"]()
    assert {"jsubspace.measure", "jsubspace.training.train", "jsubspace.data.arrays.ArrayData"} <= documented
    overview = set(re.findall(r"^   (jsubspace\.\S+)$", page("api/index.md"), re.MULTILINE))
    assert {name for name in REFERENCE["exported"]() if name not in overview} <= {"jsubspace.Rate", "jsubspace.Rates"}
    assert overview <= documented


def test_a_missing_name_is_noticed():
    names = REFERENCE["_names"]
    block = "```python\nfrom jsubspace.models import adapters as a\nimport jsubspace\na.from_nnx(1)\njsubspace.Line.grid\n```"
    assert names(block) == {"jsubspace.models.adapters.from_nnx", "jsubspace.Line"}
    assert names("```python\nfrom jsubspace.examples import gpt\ngpt.Settings()\n```") == set()
    assert names("```python\nfrom jsubspace.data.arrays import ArrayData\n```") == {"jsubspace.data.arrays.ArrayData"}


def test_every_block_of_code_is_known_to_the_tests():
    """Blocks of Python stand in ``docs/*.md`` and README.md, which tests execute. Other pages have commands alone."""
    fences = {"", "text", "bibtex", "python", "{toctree}", "{eval-rst}"}
    for path in [*DOCS.rglob("*.md"), *REPOSITORY.glob("*.md"), REPOSITORY / "experiments" / "README.md"]:
        opened = re.findall(
            r"^\s*```(\S*)[^\n]*\n.*?^\s*```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        assert set(opened) <= fences, path
        if "python" in opened:
            assert (path.parent == DOCS and path.name in guides.with_code()) or path.name == "README.md", path


def test_one_address_is_named_everywhere():
    """If not: python .ci/address.py github.com/USER/NAME."""
    user, name = ADDRESS["ADDRESS"].split("/")[1:]
    ours = re.compile(r"(?:github(?:\.com)?/([\w-]+)/|([\w-]+)\.github\.io/)jsubspace\b")
    paths = [*DOCS.rglob("*.md"), *REPOSITORY.glob("*.md"), *REPOSITORY.glob("experiments/notebooks/*")]
    paths += [*REPOSITORY.glob("*.cff"), *REPOSITORY.glob(".github/**/*.y*ml"), REPOSITORY / "setup.py"]
    for path in paths:
        found = {first or second for first, second in ours.findall(path.read_text(encoding="utf-8"))}
        assert found <= {user}, path
    text = f"https://github.com/{user}/{name} https://colab.x/github/{user}/{name}/a https://{user}.github.io/{name}/"
    assert ADDRESS["renamed"](text, "github.com/me/mine") == (
        "https://github.com/me/mine https://colab.x/github/me/mine/a https://me.github.io/mine/"
    )


# Numbers


@pytest.fixture(scope="module")
def figure10():
    """For each row of the table, standard training and the midpoint: accuracy in %, calibration error, NLL."""
    panels = json.loads((RESULTS / "figures" / "small" / "figure10.json").read_text(encoding="utf-8"))["panels"]
    (x,) = {tuple(series["x"]) for panel in panels for series in panel["series"]}
    means = {
        (place, series["label"]): [statistics.mean(seeds) for seeds in zip(*series["y"], strict=True)]
        for place, panel in enumerate(panels)
        for series in panel["series"]
    }
    return {epochs: [(means[j, "standard"][i], means[j, "line"][i]) for j in range(3)] for i, epochs in enumerate(x)}


def test_the_table_of_figure_10(figure10):
    text = page("paper.md")
    for epochs, (accuracy, ece, nll) in figure10.items():
        cells = [*(f"{100 * a:.1f} %" for a in accuracy), *(f"{e:.3f}" for e in ece), *(f"{n:.3f}" for n in nll)]
        assert f"| {' | '.join([str(epochs), *cells])} |" in text
    ratios = [line / standard for _, (standard, line), _ in figure10.values()]
    assert f"{100 * min(ratios):.0f} to {100 * max(ratios):.0f} % of standard training's" in " ".join(text.split())
    behind = {epochs: 100 * (standard - line) for epochs, ((standard, line), _, _) in figure10.items()}
    assert f"{behind[60]:.1f} % behind standard training after 60 epochs, {behind[120]:.1f} % after 120" in text
    assert [epochs for epochs, (_, _, (standard, line)) in figure10.items() if line < standard] == [120, 240, 480]


def test_the_costs_of_a_compiled_step():
    rows = json.loads((RESULTS / "bench_tpu" / "rows.json").read_text(encoding="utf-8"))
    standard = rows["resnet50/standard/replicated"]

    def ratios(field, mode):
        return [rows[f"resnet50/{name}/{mode}"][field] / standard[field] for name in ("line", "simplex6")]

    expected = [
        ("flops", "flops", "replicated", 4),
        ("bytes on the wire", "wire", "replicated", 2),
        ("bytes accessed", "bytes_accessed", "replicated", 3),
        ("bytes on the wire, `shard_endpoints=True`", "wire", "sharded", 2),
        ("bytes accessed, `shard_endpoints=True`", "bytes_accessed", "sharded", 3),
        ("memory per chip of endpoints and optimizer, `shard_endpoints=True`", "state_memory", "sharded", 2),
    ]
    for title, field, mode, digits in expected:
        cells = " | ".join(f"{ratio:.{digits}f}" for ratio in ratios(field, mode))
        assert f"| {title} | {cells} |" in page("devices.md")


def test_the_table_of_methods_is_the_recorded_one():
    assert (RESULTS / "methods" / "table.md").read_text(encoding="utf-8").strip() in page("methods.md")


def test_the_numbers_of_the_stress_tests():
    text = page("long_runs.md")
    kills, signals = (
        json.loads((RESULTS / "stress" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("report_rebuilt", "signals")
    )
    assert f"**Killed {kills['kills']} times**" in text
    assert f"{kills['phases']['saving']} saves" in text
    assert f"{kills['fallbacks']} checkpoints damaged" in text
    assert f"**{signals['signals']:,} signals**" in text
    assert [kills["verdict"], signals["verdict"]] == ["identical"] * 2
    words = {5: "five", 11: "Eleven"}
    assert f"{words[sum(kills['runs'].values())]} runs of {words[len(kills['runs'])]} methods" in text


def test_the_configs_in_the_table_of_data_sets_exist():
    found = re.findall(r"`(\w+)_\{([\w,]+)\}`", page("data_sets.md"))
    named = {f"{stem}_{method}" for stem, methods in found for method in methods.split(",")}
    assert named == {path.stem for path in (REPOSITORY / "configs").glob("*.py")}
