"""Every config trains, evaluates and draws, on stand-ins that the real builders prepared.

The networks are narrowed, and the deepest made shallower; all else is the config's own.
"""

import collections
import importlib.util

import jax
import numpy as np
import pytest
from places import CONFIGS

from jsubspace import runs
from jsubspace.data import imagenet, pipeline, sets
from jsubspace.data.batching import Batching
from jsubspace.runs import build, config, images, limits, parts, recipes
from jsubspace.storage.writer import read_rows
from jsubspace.training.parallel import DataParallel

CONFIGS = sorted(CONFIGS.glob("*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def smoke(settings, data_dir):
    """The config, small enough for a test: one batch an epoch, two epochs."""
    settings.data.dir = data_dir
    settings.data.num_workers = 0
    settings.model.width = 2
    if settings.model.name == "cresnet":
        settings.model.depth = 8
    else:
        settings.model.depth, settings.model.inner_width = 10, 1
    settings.data.batch_size = settings.evaluation.batch_size = 16
    data = pipeline.make_pipeline(settings.data.name, data_dir, Batching(1, 1, seed=0, num_workers=0))
    settings.data.batch_size = data.steps_per_epoch
    settings.evaluation.num_points, settings.evaluation.num_random_points = 3, 2
    settings.evaluation.num_resamples = 20
    settings.evaluation.num_stats_batches = min(settings.evaluation.num_stats_batches, 2)
    settings.optimizer.num_epochs, settings.optimizer.warmup_epochs = 2, 1
    settings.log_every_steps = settings.checkpoint_every_epochs = settings.num_devices = 1
    return settings


def trained():
    """Of each kind of network and of pipeline a line; the others differ from it as methods do (below), and are trained by ``make slow``."""
    for path in CONFIGS:
        if "wide" in path.stem:  # narrowed, the wide ResNet50 is the ResNet50
            continue
        quick = path.stem in ("fashion_mnist_cresnet8_line", "imagenet_resnet50_line")
        yield pytest.param(path, id=path.stem, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("path", list(trained()))
def test_every_config_trains_and_evaluates(path, fake_data, tmp_path):
    settings = smoke(load(path).get_config(), fake_data)
    results = runs.train(settings, tmp_path / "run")
    assert [row["step"] for row in read_rows(tmp_path / "run", "train")] == [1, 2]
    m = parts.make_subspace(settings).num_endpoints
    assert len(results["points"][0]["weights"]) == m
    kinds = collections.Counter(point["kind"] for point in results["points"])
    del kinds["mesh"]  # where the connector of a simplex is measured
    simplex = {"center": 1, "corner": m, "random": 2} | ({"layerwise": 2} if settings.subspace.layerwise else {})
    assert kinds == {"point": {"network": 1}, "simplex": simplex}.get(settings.subspace.name, {"grid": 3})
    assert results["config"]["data"]["name"] == settings.data.name
    assert (tmp_path / "run" / "figures" / "reliability.png").stat().st_size > 1000


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem.endswith("_line")], ids=lambda path: path.stem)
def test_the_step_of_every_line_fits_its_images(path, fake_data):
    """The shapes of the step, on the batches of the data set. Nothing is compiled."""
    run = build.build(smoke(load(path).get_config(), fake_data))
    batch = next(run.devices.put_batches([next(run.problem.data.train_batches(0, run.shard))]))
    _, report = jax.eval_shape(run.compiled_step(), run.state_shape, batch, run.key)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(report))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_says_what_it_is(path):
    module = load(path)
    settings = module.get_config()
    limits.validate(settings)
    assert f"python -m jsubspace.main --config=configs/{path.name}" in module.__doc__
    assert "Wortsman et al., Learning Neural Network Subspaces, ICML 2021" in module.__doc__
    assert settings.subspace.layerwise == path.stem.endswith("layerwise")
    method = path.stem.removesuffix("_layerwise").rpartition("_")[2]
    assert settings.subspace.name == {"standard": "point"}.get(method, method)


def test_methods_differ_in_the_subspace_alone():
    by_set = {}
    for path in CONFIGS:
        flat = config.fields(load(path).get_config())
        rest = {field: value for field, value in flat.items() if not field.startswith("subspace.")}
        stem = path.stem.removesuffix("_layerwise").rpartition("_")[0]
        assert by_set.setdefault(stem, rest) == rest, path.stem
    assert len(by_set) == 6


def test_the_papers_settings():
    cifar = recipes.cifar10_cresnet20("line")
    assert (cifar.optimizer.num_epochs, cifar.data.batch_size, cifar.optimizer.weight_decay) == (160, 128, 1e-4)
    assert (cifar.optimizer.learning_rate, cifar.optimizer.momentum, cifar.optimizer.warmup_epochs) == (0.1, 0.9, 5)
    assert (cifar.penalty.beta, cifar.penalty.all_leaves, cifar.model.depth, cifar.model.width) == (1.0, False, 20, 16)
    tiny = recipes.tiny_imagenet_resnet18("line")
    assert (tiny.optimizer.num_epochs, tiny.data.batch_size, tiny.optimizer.weight_decay) == (160, 128, 1e-4)
    resnet = recipes.imagenet_resnet50("line")
    assert (resnet.optimizer.num_epochs, resnet.data.batch_size, resnet.optimizer.weight_decay) == (200, 256, 5e-5)
    assert recipes.imagenet_wide_resnet50("line").optimizer.num_epochs == 100


class ShapesOnly:
    """A pipeline that has no images: enough to compile a step."""

    data_set = sets.find("imagenet2012")
    steps_per_epoch = 5005
    num_train = num_test = num_validation = num_bytes = 0
    resident = None
    preprocess = imagenet.ImageNet.preprocess
    augment = imagenet.ImageNet.augment


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [recipes.imagenet_resnet50, recipes.imagenet_wide_resnet50])
def test_the_imagenet_step_compiles_at_full_size(recipe):
    """224 x 224, batch 256 over eight devices; compiled, not run."""
    settings = recipe("line")
    run = build.assemble(settings, images.problem_of(settings, ShapesOnly()), DataParallel(tuple(jax.devices())))
    state = jax.eval_shape(run.init_state)
    number = jax.ShapeDtypeStruct((8, 32), np.int32)
    batch = (jax.ShapeDtypeStruct((8, 32, 224, 224, 3), np.uint8), number, number)
    step = run.compiled_step()
    compiled = step.lower(state, batch, jax.eval_shape(lambda: run.key)).compile()
    assert compiled.cost_analysis()["flops"] > 1e11
