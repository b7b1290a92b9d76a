"""Installs jsubspace: ``pip install .`` for the library, ``pip install '.[demo]'`` for ``make demo``.

Dependencies have no upper bounds. ``constraints/`` has the versions that the tests ran with.
"""

import pathlib
import re
import runpy

import setuptools

HERE = pathlib.Path(__file__).parent
ADDRESS = runpy.run_path(str(HERE / ".ci" / "address.py"))["ADDRESS"]
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "jsubspace" / "__init__.py").read_text(encoding="utf-8"))[1]


def description() -> str:
    """README.md with links that work outside of the repository."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    raw = f"https://raw.githubusercontent.com/{ADDRESS.removeprefix('github.com/')}/main"
    text = re.sub(r"!\[([^\]]*)\]\((?!https?:)", rf"![\1]({raw}/", text)
    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)", rf"[\1](https://{ADDRESS}/blob/main/", text)


# Every dependency has a lower bound (the version that the tests ran with, or the first that has what is used) and a reason.
INSTALL = [
    "jax>=0.10",  # everything
    "flax>=0.12.7",  # the paper's networks; nnx of older versions does not work with jax 0.10
    "optax>=0.2.8",  # SGD, schedules
    "orbax-checkpoint>=0.12",  # checkpoints
    # Configs. It loads a config file by load_module(), which warns from Python 3.12 on and which a later Python will remove.
    # No upper bound of Python follows: the bound would also keep the rest of the library from that Python.
    "ml-collections>=1.1",
    "absl-py>=2.3.1",  # flags and logging of the programs; the tests' chex needs this version
    "numpy>=2.0",  # data on the host
    "scipy>=1.14",  # the linear assignment that aligns networks; jax needs it too
    "tensorflow-datasets>=4.9.10",  # prepared data; it imports no TensorFlow unless an official builder prepares
    "requests>=2.31",  # tensorflow-datasets downloads with it, and data.prepare catches its exceptions
    "importlib_resources>=6.0",  # tensorflow-datasets imports it without declaring it
    "grain>=0.2.18; sys_platform != 'win32'",  # tensorflow-datasets' random-access reader; the ImageNet pipeline
    "array-record>=0.8.1; sys_platform != 'win32'",  # counts the records of prepared data before they are believed
    "pillow>=10.0",  # decodes the images of small data sets; resizes ImageNet's test images
    "tqdm>=4.66",  # progress on the terminal
]

EXTRAS = {
    # The 19 corruptions. This fork works with today's scikit-image, and without ImageMagick; it brings the packages that TFDS
    # corrupts ImageNet with.
    "corruptions": ["imagecorruptions-imaug>=1.1.5"],
    "digits": ["scikit-learn>=1.4.2"],  # carries the handwritten digits; the first for numpy 2
    # Runs in a bucket of Google Cloud Storage. The lower bounds are the versions that the tests ran with.
    "gcs": [
        "gcsfs>=2026.10",  # reads and writes objects
        "fsspec>=2026.9",  # finds gcsfs
        "etils>=1.15",  # its paths are those that Orbax takes
    ],
    # Subspaces on the Hugging Face Hub. The lower bound is the version that the tests ran with.
    "hub": ["huggingface-hub>=2.4"],  # uploads and downloads folders
    "imagenet": [
        "simplejpeg>=1.8",  # decodes JPEGs, half again as fast as Pillow
        "opencv-python-headless>=4.10.0.84",  # resizes training crops; the first for numpy 2
    ],
    # Executes experiments/notebooks. The lower bounds are the versions that the tests ran with.
    "notebooks": [
        "jupytext>=1.19",  # a notebook is edited and reviewed as a .py file
        "nbclient>=0.11",  # runs its cells
        "ipykernel>=7.0",  # in a kernel
        "equinox>=0.13.5",  # one of the frameworks shown; a test trains one of its models; older ones fail with jax 0.10
    ],
    # Builds the documentation. The lower bounds are the versions that its pages were looked at with.
    "docs": [
        "sphinx>=9.0",  # what jax, flax, optax and blackjax are documented by: an API reference from docstrings
        "myst-nb>=1.4",  # reads Markdown, and notebooks with their recorded outputs
        "furo>=2025.12",  # the pages: readable on a phone, light and dark
        "sphinx-copybutton>=0.5.2",  # copies a block of code
    ],
    "plot": ["matplotlib>=3.8.4"],  # figures; the first for numpy 2
    # `make release-check`. The lower bounds are the versions that the dry run ran with.
    "release": [
        "build>=1.6",  # the sdist and the wheel
        "twine>=7.0",  # their metadata, as an index would read them
        "check-jsonschema>=0.39",  # the schemas of CITATION.cff, of workflows and of templates
        "zizmor>=1.32",  # what an attacker could do with the workflows
        "mypy>=1.15",  # a user's program has types
        "basedpyright>=1.40",  # for another checker too
    ],
    "tensorboard": ["tensorboardX>=2.6.2.2"],  # events; unlike clu and flax.metrics it needs no TensorFlow
    "tensorflow": ["tensorflow-cpu>=2.18"],  # official builders need it, to prepare only
    "tpu": ["jax[tpu]>=0.10"],
    "cuda": ["jax[cuda12]>=0.10"],
}
EXTRAS["demo"] = [*EXTRAS["digits"], *EXTRAS["plot"], *EXTRAS["tensorboard"]]
EXTRAS["dev"] = [
    *EXTRAS["demo"],
    *EXTRAS["corruptions"],
    *EXTRAS["gcs"],
    *EXTRAS["hub"],
    *EXTRAS["imagenet"],
    *EXTRAS["tensorflow"],
    *EXTRAS["notebooks"],
    "hypothesis>=6.100",  # property tests over random inputs
    "chex>=0.1.92",  # the tests compare trees and count traces with it, and the library itself does not import it
    "safetensors>=0.8",  # writes and reads the files of the tests as other programs do; the library has a reader of its own
    "gcp-storage-emulator>=2026.7",  # the bucket of the tests; the version that they ran with
    "setuptools>=77",  # a test builds the wheel and the sdist; an environment of Python 3.12 or later has no setuptools
    "mypy>=1.15",
    "pytest>=8.0",
    "pyyaml>=6.0",  # a test reads the workflows and CITATION.cff
    "pytest-xdist>=3.6",
    "ruff>=0.9",
]

setuptools.setup(
    name="jsubspace",
    version=VERSION,
    description="Learn lines, curves and simplexes of neural networks in one training run, in JAX",
    long_description=description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="The jsubspace authors",
    url=f"https://{ADDRESS}",
    project_urls={
        "Documentation": f"https://{ADDRESS.split('/')[1]}.github.io/{ADDRESS.split('/')[2]}/",
        "Changelog": f"https://{ADDRESS}/blob/main/CHANGELOG.md",
        "Issues": f"https://{ADDRESS}/issues",
    },
    keywords=["jax", "flax", "deep learning", "ensembles", "calibration", "mode connectivity", "weight averaging"],
    python_requires=">=3.11",
    # configs/ is at the top of the repository, where a reader finds it. It is installed inside the package, so that
    # `--config=digits_cresnet8_line` works without a checkout.
    packages=[*setuptools.find_packages(include=["jsubspace", "jsubspace.*"]), "jsubspace.configs"],
    package_dir={"jsubspace.configs": "configs"},
    package_data={"jsubspace": ["py.typed"]},
    install_requires=INSTALL,
    extras_require=EXTRAS,
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
