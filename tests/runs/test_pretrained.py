"""A pretrained network is the common start or the origin of a run: bit for bit, resumed, exported, and refused in words."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import safetensors.numpy
from own_problems import apply_dense, classes, classifier, dense, of_file, short_settings
from whole_runs import StopAt, same, without_speed

import jsubspace
from jsubspace import export, runs, training
from jsubspace.errors import Preempted, UsageError
from jsubspace.exchange import network_files
from jsubspace.models import adapters
from jsubspace.runs import build, memory, methods, pretrained, results, stacks
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.writer import read_rows
from jsubspace.training.train_state import init_train_state
from jsubspace.training.train_step import Given

pytestmark = pytest.mark.usefixtures("no_figures")

BASE = jax.tree.map(np.asarray, dense(jax.random.key(7)))


def settings_of(path, role="start", **options):
    settings = short_settings()
    settings.start.network, settings.start.role = str(path), role
    for name, value in options.items():
        group, _, field = name.rpartition("__")
        (settings[group] if group else settings)[field] = value
    return settings


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "base.safetensors"
    network_files.save(path, {"params": BASE})
    return path


def repeated(network, m):
    return jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], m, axis=0), network)


def endpoints_in(workdir):
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return jax.tree.map(
            np.asarray, checkpoints.restore_part("endpoints", jax.sharding.SingleDeviceSharding(jax.devices()[0]))
        )


@pytest.mark.parametrize(("subspace", "divided"), [("point", False), ("line", False), ("curve", True)])
def test_all_endpoints_start_at_the_bits_of_the_file(subspace, divided, file):
    settings = settings_of(file, num_devices=2, shard_endpoints=divided, subspace__name=subspace)
    run = build.build(settings, classifier())
    state = stacks.init_state(run)
    same(state.endpoints, repeated(BASE, run.subspace.num_endpoints))
    fresh = run.devices.run_once(run.init_state, shardings=run.shardings)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == jax.tree.map(lambda leaf: leaf.sharding, fresh)
    same(state.opt_state, fresh.opt_state)


def test_a_narrower_float_is_widened_exactly(tmp_path):
    narrow = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), BASE)
    network_files.save(tmp_path / "n.safetensors", narrow)
    found = stacks.init_state(build.build(settings_of(tmp_path / "n.safetensors"), classifier())).endpoints
    same(found, repeated(jax.tree.map(lambda leaf: leaf.astype(np.float32), narrow), 2))


@pytest.mark.parametrize("divided", [False, True])
def test_the_step_has_the_gradient_of_value_and_grad_with_the_origin(divided, file):
    settings = settings_of(file, "origin", num_devices=2, shard_endpoints=divided)
    run = build.build(settings, classifier())
    endpoints = jax.tree.map(
        lambda leaf: leaf + jax.random.normal(jax.random.key(3), leaf.shape) / 4, repeated(BASE, 2)
    )
    x, y = (array[:20] for array in classes())

    def loss_fn(point, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(apply_dense(point, x), y).mean()

    @jax.jit
    def expected(origin):
        """The endpoints after a step of SGD, and cos²."""
        key = jax.random.split(jax.random.fold_in(run.key, 0), 3)[0]
        grad_fn = jsubspace.value_and_grad(loss_fn, run.subspace, origin=origin)
        (_, info), grads = grad_fn(key, endpoints, x, y)
        updates, _ = run.optimizer.update(grads, run.optimizer.init(endpoints), endpoints)
        return optax.apply_updates(endpoints, updates), info.penalty

    (ours, penalty), (others, other) = expected(BASE), expected(None)
    state = run.devices.put(init_train_state(endpoints, run.optimizer), run.shardings)
    batch = next(run.devices.put_batches([(x, y)]))
    found, info = run.compiled_step(Given(pretrained.origin(run)))(
        state, batch, run.devices.put(run.key)
    )  # It takes the memory.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found.endpoints, ours)
    np.testing.assert_allclose(info.by_step()[0]["penalty"], penalty, rtol=1e-5)
    assert abs(other - penalty) > 0.1
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), ours, others))) > 1e-3


def test_a_run_resumes_to_the_same_bits_but_not_with_another_file(file, tmp_path):
    settings = settings_of(file, "origin", optimizer__num_epochs=2, checkpoint_every_epochs=1)
    problem = classifier()
    whole = training.train(problem, settings, tmp_path / "whole", StopAt(0))
    with pytest.raises(Preempted, match="saved after step 2"):
        training.train(problem, settings, tmp_path / "stopped", StopAt(2))
    changed = tmp_path / "changed.safetensors"
    network_files.save(changed, {"params": jax.tree.map(lambda leaf: leaf + 1, BASE)})
    kept, other = file.read_bytes(), changed.read_bytes()
    file.write_bytes(other)
    with pytest.raises(
        UsageError, match=r"holds another run:\n  config.start.digest: '[0-9a-f]{64}' there, '[0-9a-f]{64}' here"
    ):
        training.train(problem, settings, tmp_path / "stopped")
    file.unlink()
    with pytest.raises(UsageError, match=r"base.safetensors does not exist"):
        training.train(problem, settings, tmp_path / "stopped")
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(kept)
    settings.start.network = str(moved)
    found = training.train(problem, settings, tmp_path / "stopped", StopAt(0))
    same(*(endpoints_in(tmp_path / name) for name in ("whole", "stopped")))
    rows = [without_speed(read_rows(tmp_path / name)) for name in ("whole", "stopped")]
    assert rows[0] == rows[1]
    assert found["points"] == whole["points"]
    recorded = json.loads((tmp_path / "whole" / "config.json").read_text())["start"]
    assert recorded["role"] == "origin"
    assert recorded["digest"] == pretrained.with_digest(settings).start.digest
    assert results.read(tmp_path / "whole")["config"]["start"] == recorded
    assert methods.name_of(whole["config"]) == "line, around a network"
    assert methods.name_of(settings_of(file).to_dict() | {"model": {}}) == "line, from a network"
    # The log has cos² of the task vectors.
    last, logged = endpoints_in(tmp_path / "whole"), rows[0][-1]["cosine_squared"]
    np.testing.assert_allclose(logged, jsubspace.cosine_squared(last, 0, 1, origin=BASE), rtol=1e-4)
    assert logged < float(jsubspace.cosine_squared(last, 0, 1)) - 0.05


def test_a_run_that_has_begun_needs_its_start_no_more(file, tmp_path):
    settings, problem, folder = settings_of(file), classifier(), tmp_path / "run"
    with pytest.raises(Preempted, match="saved after step 2"):
        training.train(problem, settings, folder, StopAt(2))
    digest = pretrained.with_digest(settings).start.digest
    file.rename(tmp_path / "moved.safetensors")
    found = training.train(problem, settings, folder, StopAt(0))
    assert found["config"]["start"]["digest"] == digest
    assert training.train(never, settings, folder) == found
    settings.start.digest = "0" * 64
    with pytest.raises(UsageError, match="The file has changed"):
        training.train(never, settings, folder)
    settings.start.digest = ""
    for other in (tmp_path / "new", tmp_path / "begun"):
        with pytest.raises(UsageError, match=r"base.safetensors does not exist"):
            training.train(never, settings, other)
        (tmp_path / "begun").mkdir(exist_ok=True)  # A folder with a config.json and without a checkpoint.
        (tmp_path / "begun" / "config.json").write_text((folder / "config.json").read_text())


def test_a_finished_run_around_an_origin_is_found_without_the_file(file, tmp_path):
    settings = settings_of(file, "origin")
    found = training.train(classifier(), settings, tmp_path / "run")
    file.unlink()
    assert training.train(never, settings, tmp_path / "run") == found


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """The folder of a run of an epoch, its settings and its problem."""
    get_config, get_problem = of_file()
    settings = get_config()
    settings.optimizer.num_epochs, settings.optimizer.warmup_epochs, settings.evaluation.every_epochs = 1, 0, 0
    folder = tmp_path_factory.mktemp("short") / "run"
    training.train(get_problem, settings, folder)
    return folder, settings, get_problem


@pytest.mark.parametrize("target", ["network.safetensors", "network"])
def test_what_export_writes_is_a_start(target, short_run, tmp_path):
    folder, settings, get_problem = short_run
    export.export(folder, tmp_path / target, "0.25", get_problem)
    expected = jsubspace.interpolate(endpoints_in(folder), 0.25)
    settings = settings.copy_and_resolve_references()
    settings.start.network = str(tmp_path / target)
    same(stacks.init_state(build.build(settings, get_problem(settings))).endpoints, repeated(expected, 2))


def test_other_runs_are_the_start_around_the_origin(short_run, tmp_path):
    folder, settings, get_problem = short_run
    problem = get_problem(settings)
    base = jax.tree.map(np.asarray, problem.network.init(jax.random.key(4)))
    network_files.save(tmp_path / "base.safetensors", base)
    around = settings.copy_and_resolve_references()
    around.start.runs, around.start.network, around.start.role = (
        str(folder),
        str(tmp_path / "base.safetensors"),
        "origin",
    )
    run = build.build(around, problem)
    same(stacks.init_state(run).endpoints, repeated(jsubspace.midpoint(endpoints_in(folder)), 2))
    same(pretrained.origin(run), base)
    sizes = [memory.estimate(build.build(given, problem)).device[0].size for given in (around, settings)]
    assert sizes[0] - sizes[1] == sum(leaf.nbytes for leaf in jax.tree.leaves(base))


def test_a_network_is_only_measured_and_exported_again(short_run, tmp_path):
    folder, settings, get_problem = short_run
    expected = jax.tree.map(lambda leaf: leaf[0], endpoints_in(folder))
    network_files.save(tmp_path / "first", {"params": expected})
    settings = settings.copy_and_resolve_references()
    settings.start.network, settings.optimizer.num_epochs = str(tmp_path / "first"), 0
    settings.subspace.name = "point"
    found = training.train(get_problem, settings, tmp_path / "measured")
    before = next(row for row in results.read(folder)["points"] if row["alpha"] == 0)
    assert found["points"][0]["nll"] == pytest.approx(before["nll"], rel=1e-6)
    export.export(tmp_path / "measured", tmp_path / "again.safetensors", "", get_problem)
    same(network_files.load(tmp_path / "again.safetensors")[0]["params"], expected)


def test_the_networks_of_the_programs_with_batch_norm(tiny_config, tmp_path):
    run = build.build(tiny_config)
    images, rng = jnp.zeros((1, 8, 8, 1)), np.random.default_rng(5)
    shapes = jax.eval_shape(lambda: run.problem.model.init(jax.random.key(5), images, train=True))
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), dict(shapes))
    network_files.save(tmp_path / "n.safetensors", variables)
    tiny_config.start.network = str(tmp_path / "n.safetensors")
    assert "batch_stats" in variables
    same(stacks.init_state(build.build(tiny_config)).endpoints, repeated(variables["params"], 2))


@pytest.mark.parametrize("kind", ["nnx", "equinox", "linen", "a list"])
def test_the_names_of_every_framework(kind, tmp_path):
    if kind == "nnx":
        from flax import nnx

        network = adapters.from_nnx(
            lambda rngs: nnx.Sequential(nnx.Linear(4, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs))
        )
    elif kind == "linen":
        from flax import linen

        network = adapters.from_linen(linen.Sequential([linen.Dense(3), linen.relu, linen.Dense(2)]), classes()[0][:1])
    elif kind == "equinox":
        eqx = pytest.importorskip("equinox")
        network = adapters.from_equinox(lambda key: eqx.nn.MLP(4, 2, 3, 1, key=key))
    else:

        def apply(point, x):
            return x @ point["layers"][0]["kernel"] @ point["layers"][1][0]

        def init(key):
            return {"layers": [{"kernel": jax.random.normal(key, (4, 3))}, (jax.random.normal(key, (3, 2)),)]}

        network = adapters.from_functions(init, apply)
    base = jax.tree.map(np.asarray, network.init(jax.random.key(9)))
    network_files.save(tmp_path / "n.safetensors", {"params": base})
    found = stacks.init_state(build.build(settings_of(tmp_path / "n.safetensors"), classifier(network))).endpoints
    same(found, repeated(base, 2))


def never(settings):
    pytest.fail("the problem was made before the file was looked at")


def test_a_wrong_file_is_refused_before_data_is_read(file, tmp_path):
    def refused(message, problem=never, **options):
        settings = settings_of(file)
        for name, value in options.items():
            group, _, field = name.rpartition("__")
            settings[group][field] = value
        with pytest.raises(UsageError, match=message):
            training.train(problem, settings, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refused(
        "nowhere does not exist. A network is a file NAME.safetensors, an index",
        start__network=str(tmp_path / "nowhere"),
    )
    refused("start.digest is 0{64}, but .*base.safetensors .of start.network. has [0-9a-f]{64}", start__digest="0" * 64)
    refused("config.start.digest is 'abc'. It must be 64 hexadecimal digits, or empty", start__digest="abc")
    refused(
        "config.start.digest is .* must be empty without config.start.network",
        start__network="",
        start__digest="0" * 64,
    )
    refused("config.start.role is 'base'. It must be one of start, origin", start__role="base")
    refused(
        "config.start.role is 'origin'. It must be start without config.start.network",
        start__network="",
        start__role="origin",
    )
    refused("config.start.role is 'start'. It must be origin if both", start__runs="runs/a")
    refused("config.subspace.center_scale is 'network'. It must be endpoint with", subspace__center_scale="network")

    def wrong(message, network):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        safetensors.numpy.save_file(network, path)
        refused(message, classifier(), start__network=str(path))

    kernel, bias = BASE["dense"]["kernel"], BASE["dense"]["bias"]
    wrong(
        r"dense/kernel is float32\[2, 4\] there and float32\[4, 2\] here",
        {"dense.kernel": np.ascontiguousarray(kernel.T), "dense.bias": bias},
    )
    wrong(r"it has no dense/bias.* \(similar: dense/b\)", {"dense.kernel": kernel, "dense.b": bias})
    wrong("it has head/bias, float32", {"dense.kernel": kernel, "dense.bias": bias, "head.bias": bias})
    wrong(
        r"not finite: the leaf \['dense'\]\['bias'\]", {"dense.kernel": kernel, "dense.bias": bias * np.float32(np.nan)}
    )


def test_the_program_starts_from_a_network(tiny_mlp, tmp_path):
    tiny_mlp.optimizer.num_epochs, tiny_mlp.optimizer.warmup_epochs, tiny_mlp.num_devices = 1, 0, 1
    run = build.build(tiny_mlp)
    base = jax.device_get(run.problem.network.init(jax.random.key(1)))
    network_files.save(tmp_path / "base", {"params": base})
    tiny_mlp.start.network, tiny_mlp.start.role = str(tmp_path / "base"), "origin"
    with pytest.raises(Preempted, match="saved after step 1"):
        runs.train(tiny_mlp, tmp_path / "run", StopAt(1))
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())["start"]
    assert recorded["digest"] == pretrained.with_digest(tiny_mlp).start.digest
    same(pretrained.origin(build.build(tiny_mlp)), base)
