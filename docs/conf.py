"""How Sphinx builds the documentation. ``make docs`` is the command.

The source folder is the root of the repository, so a link between two documents is the same here and in the repository.
Notebooks are shown with their recorded outputs and never executed.
"""

import pathlib
import re
import runpy
import sys

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

DOCS = pathlib.Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))
import jsubspace  # noqa: E402

REFERENCE = runpy.run_path(str(DOCS / "reference.py"))
ADDRESS = runpy.run_path(str(DOCS.parent / ".ci" / "address.py"))["ADDRESS"]

project = "jsubspace"
author = "the jsubspace authors"
project_copyright = "the jsubspace authors"
version = release = jsubspace.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/api/*.md",
    "experiments/README.md",
    "experiments/notebooks/*.ipynb",
    "experiments/results/*/*.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [".*", "**/.*", "build", "jsubspace", "runs", "tests", "experiments/results/methods"]

# Documents.
myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 4
myst_links_external_new_tab = True
nb_execution_mode = "off"
nb_remove_code_outputs = False
highlight_language = "bash"  # indented blocks are commands
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# The reference.
default_role = "py:obj"  # single backticks in docstrings are names, with a link where the reference has the name
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say types and shapes in words
autosummary_generate = False
maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
toc_object_entries_show_parents = "hide"
add_module_names = False
python_display_short_literal_types = True

# Pages.
html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = "jsubspace"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_extra_path = ["_extra"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "source_repository": f"https://{ADDRESS}/",
    "source_branch": "main",
    "source_directory": "",
    "top_of_page_buttons": [],
    "light_css_variables": {"color-brand-primary": "#0b5394", "color-brand-content": "#0b5394"},
    "dark_css_variables": {"color-brand-primary": "#7cb7ff", "color-brand-content": "#7cb7ff"},
}


def check_reference(app: Sphinx, env: object) -> None:
    """Warns of every public name that the reference lacks. ``make docs`` treats the warning as an error."""
    for name, page in REFERENCE["missing"]().items():
        logging.getLogger(__name__).warning(f"{name} (from {page}) has no entry in docs/api/.")


def leave_out_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Leaves out the pages that docs/index.md has a place for and that are not written yet."""
    if name == root_doc:
        listed = re.compile(r"^[^\n<>]+ <(\w+)>\n", re.MULTILINE)
        source[0] = listed.sub(lambda line: line[0] if (DOCS / f"{line[1]}.md").exists() else "", source[0])


def link_names(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Links code such as `jsubspace.measure` in a guide to its entry in the reference."""
    objects = app.env.get_domain("py").objects
    for literal in list(tree.findall(nodes.literal)):
        name = literal.astext().partition("(")[0]
        if name in objects and not isinstance(literal.parent, nodes.reference):
            place = app.builder.get_relative_uri(page, objects[name].docname)
            link = nodes.reference("", "", internal=True, refuri=f"{place}#{objects[name].node_id}")
            literal.replace_self(link)
            link += literal


def setup(app: Sphinx) -> None:
    """Connects the functions of this file."""
    app.connect("source-read", leave_out_pages)
    app.connect("env-check-consistency", check_reference)
    app.connect("doctree-resolved", link_names)
