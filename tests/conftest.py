"""The tests run on the CPU, which shows eight devices, whatever the machine has; set before jax is imported.

Almost all of their time goes into compiling programs that run once, so they are compiled quickly (`quick_compiling`).
``XLA_FLAGS=--xla_backend_optimization_level=3 make test`` lets LLVM optimise.
"""

import logging
import os
import pathlib

import quick_compiling

REPOSITORY = pathlib.Path(__file__).parent.parent

os.environ["JAX_PLATFORMS"] = "cpu"
FLAGS = f"--xla_force_host_platform_device_count=8 {quick_compiling.FLAGS}"
os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}"  # the last of a kind counts
# Many tests compile the same programs, and so do the programs that they start. Small programs are kept too: a fifth of the time.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".pytest_cache" / "compiled"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest

# These tests read the sources of the package. They are left out where only the wheel is installed (.ci/test_wheel).
OF_SOURCES = [
    "test_architecture.py",
    "test_documentation.py",
    "test_names.py",
    "test_packaging.py",
    "test_prose.py",
    "test_same_bits.py",
    "storage/test_documents.py",
    "storage/test_files.py",
]
collect_ignore = [] if (REPOSITORY / "jsubspace").is_dir() else OF_SOURCES


def pytest_collection_modifyitems(items):
    """Refuses names of tests with the address of a function, which differ between the processes that share the tests."""
    named = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if named:
        raise pytest.UsageError(f"give these tests names without addresses (ids=): {named}")


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Thousands of them would be gigabytes by the end."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def leave_the_log_alone():
    """Programs, which tests call as functions too, take the library's log to their standard error."""
    log = logging.getLogger("jsubspace")
    before = log.handlers, log.propagate, log.level
    yield
    log.handlers, log.propagate, log.level = before


@pytest.fixture
def x64():
    """Arrays are float64 by default in this test, and in this test alone."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def one_device(monkeypatch):
    """Programs that this test starts see one device."""
    monkeypatch.setenv("XLA_FLAGS", quick_compiling.FLAGS)


@pytest.fixture
def no_figures(monkeypatch):
    """Runs that this test evaluates draw nothing. It would be a sixth of their time, and other tests look at the figures."""
    monkeypatch.setattr("jsubspace.runs.figures.draw", lambda *args: [])


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder with the digits, prepared as a user's first run would."""
    from jsubspace.data import prepare

    folder = tmp_path_factory.mktemp("data")
    prepare.prepare("digits", str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def fake_data(tmp_path_factory):
    """A folder in which a stand-in of every data set is prepared by its real builder (`fake_archives`)."""
    import fake_archives

    folder = tmp_path_factory.mktemp("fake_data")
    fake_archives.prepare_all(folder)
    return str(folder)


@pytest.fixture
def tiny_config(data_dir):
    """A run of seconds: a narrow cResNet-8 on digits, 12 steps an epoch, the last of 29 examples."""
    from whole_runs import tiny_settings

    return tiny_settings(data_dir)


@pytest.fixture
def tiny_mlp(tiny_config):
    """The same run with a network that compiles at once: one hidden layer of eight units."""
    tiny_config.model.name, tiny_config.model.depth, tiny_config.model.width = "mlp", 1, 8
    return tiny_config
