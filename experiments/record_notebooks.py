"""Executes the notebooks and records what they print and draw: ``python -m experiments.record_notebooks [NAME ...]``.

A notebook is edited as its ``.py`` file (jupytext's percent format). The ``.ipynb`` beside it has the same cells, and the
outputs of the last time that this was run. It needs the extra ``notebooks``.
"""

import argparse
import pathlib
import runpy
import tempfile

import jupytext
import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).parent / "notebooks"

ADDRESS = runpy.run_path(str(FOLDER.parent.parent / ".ci" / "address.py"))["ADDRESS"]
"""Where the badges and the install cells look for this repository. ``python .ci/address.py NEW`` changes it everywhere."""

METADATA = {
    "jupytext": {
        "formats": "ipynb,py:percent",
        "notebook_metadata_filter": "-jupytext.text_representation.jupytext_version",
    },
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def names() -> list[str]:
    """The names of all notebooks."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def read(name: str) -> nbformat.NotebookNode:
    """The notebook of ``NAME.py``, without outputs. A cell is named by its place."""
    notebook = jupytext.read(FOLDER / f"{name}.py", fmt="py:percent")
    for place, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{place}", {}
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: pathlib.Path) -> nbformat.NotebookNode:
    """The notebook with outputs, executed by this interpreter's kernel in ``folder``, where it may write.

    Raises:
      CellExecutionError: if a cell fails, with its traceback.
    """
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,
        record_timing=False,
        store_widget_state=False,
    )
    executed = client.execute()
    executed.metadata = nbformat.from_dict(METADATA)
    return executed


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m experiments.record_notebooks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="without .py; all notebooks if none is named")
    for name in parser.parse_args().names or names():
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(read(name), pathlib.Path(folder)), FOLDER / f"{name}.ipynb")
        print(f"{FOLDER / name}.ipynb: {(FOLDER / f'{name}.ipynb').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
