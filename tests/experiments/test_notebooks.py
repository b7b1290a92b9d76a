"""The notebooks run from top to bottom without a network, print no warning, and say what their scripts say."""

import os
import subprocess
import sys

import matplotlib
import nbformat
import pytest
from places import REPOSITORY

from experiments import record_notebooks
from jsubspace.runs import figures, results
from jsubspace.storage.writer import read_rows

NAMES = [
    "checkpoints", "detection", "equinox_digits", "fine_tuning", "first_tour", "language_model", "loss_plane", "regression",
    "your_own_model",
]  # fmt: skip
QUICK = ("first_tour",)
"""In the quick suite, tests/examples runs what four of the others call, and the tests of the guides and of planes run the rest."""

TO_RUN = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in NAMES]
SMALL = 150_000  # bytes of a notebook with its outputs

# Python imports it when a kernel starts: whoever reaches for the network, or for pip, fails and says so.
OFFLINE = """
import sys

def refuse(event, args):
    if event == "subprocess.Popen" and "pip" in map(str, args[1] or ()):
        raise PermissionError(f"a notebook installs {list(args[1])}, and there is no network in a test")
    if event in ("socket.connect", "socket.getaddrinfo"):
        host = args[1][0] if event == "socket.connect" and isinstance(args[1], tuple) else args[0]
        if isinstance(host, str) and host not in ("127.0.0.1", "::1", "localhost"):
            raise PermissionError(f"a notebook asks for {host}, and there is no network in a test")

sys.addaudithook(refuse)
"""


@pytest.fixture
def offline(tmp_path, monkeypatch, data_dir, one_device):
    """A kernel of this interpreter that has no network and no pip, and writes into ``tmp_path`` alone."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(OFFLINE)
    for variable in ("HOME", "IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(REPOSITORY)]))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    monkeypatch.setenv("JSUBSPACE_DATA_DIR", data_dir)
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def files():
    """Those that git would notice, with what they hold."""
    paths = [path for path in (REPOSITORY / "experiments").rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in paths if "__pycache__" not in path.parts}


def printed(notebook):
    """The text of a notebook's outputs: standard output, and standard error."""
    streams = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    ]
    return tuple("".join(output.text for output in streams if output.name == name) for name in ("stdout", "stderr"))


def recorded(name):
    return nbformat.read(record_notebooks.FOLDER / f"{name}.ipynb", as_version=4)


def test_these_are_all():
    assert record_notebooks.names() == NAMES
    assert sorted(path.stem for path in record_notebooks.FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", TO_RUN)
def test_it_runs_offline_and_leaves_nothing_behind(name, offline):
    """Its own assertions hold (accuracies, an exported network that predicts as in the table), and nobody warns."""
    before = files()
    executed = record_notebooks.execute(record_notebooks.read(name), offline)
    assert printed(executed)[1] == ""
    assert "Warning" not in printed(executed)[0]
    assert files() == before


@pytest.mark.parametrize("name", NAMES)
def test_the_script_and_the_notebook_are_in_step(name):
    """If not: python -m experiments.record_notebooks NAME."""
    script, notebook = record_notebooks.read(name), recorded(name)
    assert [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.id, cell.cell_type, cell.source) for cell in script.cells
    ]
    assert notebook.metadata == script.metadata


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_recorded_and_small(name):
    notebook = recorded(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert printed(notebook)[0]
    assert printed(notebook)[1] == ""
    drawn = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(drawn) == (0 if name == "your_own_model" else 1)
    assert (record_notebooks.FOLDER / f"{name}.ipynb").stat().st_size < SMALL


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_badge_and_installs_what_it_needs(name):
    first, *_ = record_notebooks.read(name).cells
    user_and_name = record_notebooks.ADDRESS.removeprefix("github.com/")
    assert f"https://colab.research.google.com/github/{user_and_name}/blob/main/experiments/notebooks/{name}.ipynb" in (
        first.source
    )
    (install,) = (cell for cell in record_notebooks.read(name).cells if "pip" in cell.source)
    assert 'if importlib.util.find_spec("jsubspace") is None:' in install.source
    assert f"git+https://{record_notebooks.ADDRESS}" in install.source


def test_it_installs_where_jsubspace_is_not_there(tmp_path):
    """With the package out of sight, the cell would run pip; and that, the test above would notice."""
    (cell,) = (cell for cell in record_notebooks.read("first_tour").cells if "pip" in cell.source)
    hide = f"{OFFLINE}\nimport importlib.util\nimportlib.util.find_spec = lambda name: None\n"
    done = subprocess.run([sys.executable, "-c", hide + cell.source], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "a notebook installs" in done.stderr
    assert f"[demo] @ git+https://{record_notebooks.ADDRESS}" in done.stderr.replace("[cuda,demo]", "[demo]")


@pytest.mark.parametrize(
    "code", ["socket.create_connection(('192.0.2.1', 80))", "socket.getaddrinfo('example.org', 80)"]
)
def test_the_network_would_be_noticed(code):
    done = subprocess.run([sys.executable, "-c", f"{OFFLINE}\nimport socket\n{code}"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is no network in a test" in done.stderr


def test_a_run_s_figures_leave_the_notebook_s_backend_alone(tmp_path):
    """A notebook shows its figures by a backend of its own, also after a run has drawn its figures into files."""
    folder = REPOSITORY / "experiments" / "results" / "digits_cresnet8_line"
    before = matplotlib.get_backend()
    try:
        matplotlib.use("svg")
        assert figures.draw(results.read(folder), read_rows(folder), tmp_path)
        assert matplotlib.get_backend() == "svg"
    finally:
        matplotlib.use(before)
