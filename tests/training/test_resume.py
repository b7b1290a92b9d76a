"""A run that is interrupted after any step ends as one that never was: every method, every pipeline, to the bit.

What `test_loop` does for whole runs of every subspace is done here for everything else that a step depends on, at steps
that end neither an epoch nor a window of the log.
"""

import functools

import jax
import numpy as np
import pytest
from whole_runs import newest_state, whole_and_interrupted, without_speed

from jsubspace.data import stand_in
from jsubspace.runs import build, config
from jsubspace.runs.run import training
from jsubspace.storage.writer import read_rows
from jsubspace.training.loop import train_endpoints

METHODS = {
    "everything random, with Lion": {
        "optimizer.name": "lion",
        "optimizer.learning_rate": 0.001,
        "subspace.layerwise": True,
        "subspace.num_samples": 2,
        "subspace.shared_init": True,
        "model.dropout_rate": 0.1,
        "data.label_noise": 0.2,
        "data.batch_size": 480,  # the last of an epoch is smaller
    },
    "all pairs of a simplex, tested on its way": {
        "subspace.name": "simplex",
        "subspace.num_endpoints": 3,
        "penalty.all_pairs": True,
        "penalty.all_leaves": True,
        "optimizer.per_epoch": True,
        "evaluation.every_epochs": 1,
    },
    "divided endpoints, sharpness-aware": {
        "optimizer.sam_rho": 0.05,
        "shard_endpoints": True,
        "num_devices": 2,
        "data.batch_size": 480,
        "model.width": 16,
    },
    "the center's rate and a spread that grows until the ninth step": {
        "subspace.pull_back": "center",
        "subspace.spread_growth": 0.75,
        "subspace.center_scale": "network",
    },
    "Muon on divided endpoints, clipped": {
        "optimizer.name": "muon",
        "optimizer.clip_norm": 0.5,
        "optimizer.learning_rate": 0.01,
        "shard_endpoints": True,
        "num_devices": 2,
        "data.batch_size": 480,
        "model.width": 16,
    },
    "an average of AdamW, two steps an update, tested on its way": {
        "optimizer.name": "adamw",
        "optimizer.accumulate_steps": 2,
        "optimizer.ema_decay": 0.9,
        "optimizer.learning_rate": 0.01,
        "evaluation.every_epochs": 1,
        "profile_steps": (2, 3),
    },
    "snapshots, sharpness-aware": {
        "subspace.name": "point",
        "optimizer.schedule": "snapshot",
        "optimizer.num_collected": 2,
        "optimizer.sam_rho": 0.05,
        "optimizer.label_smoothing": 0.1,
    },
}


def small(settings):
    """Three steps an epoch of an MLP on one device."""
    settings.model.name, settings.model.depth, settings.model.width = "mlp", 1, 8
    settings.data.batch_size, settings.num_devices = 479, 1
    settings.optimizer.num_epochs, settings.optimizer.warmup_epochs = 4, 0
    settings.log_every_steps = 4
    return settings


def interrupted_is_whole(settings, folder, interruptions):
    run = build.build(settings)
    of_run = training(run)  # Its programs are compiled once.
    for name in ("whole", "interrupted"):
        (folder / name).mkdir()
    whole_and_interrupted(functools.partial(train_endpoints, of_run), folder, interruptions)
    states = [newest_state(run, folder / name) for name in ("whole", "interrupted")]
    assert int(states[0].step) == run.total_steps
    jax.tree.map(np.testing.assert_array_equal, *states)
    rows = [without_speed(read_rows(folder / name)) for name in ("whole", "interrupted")]
    assert rows[0] == rows[1]
    return rows[0]


@pytest.mark.parametrize("name", METHODS)
def test_every_method(tiny_config, tmp_path, name):
    settings = small(tiny_config)
    for field, value in METHODS[name].items():
        config.change(settings, field, str(value))
    rows = interrupted_is_whole(settings, tmp_path, (1, 8))
    assert [row["step"] for row in rows if row["kind"] == "train"] == [4, 8, 12]
    assert len([row for row in rows if row["kind"] == "test"]) == 4 * ("tested" in name)


def test_a_network_with_batch_norm(tiny_config, tmp_path):
    tiny_config.optimizer.num_epochs, tiny_config.model.width, tiny_config.log_every_steps = 2, 2, 2
    tiny_config.data.num_validation, tiny_config.data.batch_size = 237, 600  # two equal steps an epoch
    rows = interrupted_is_whole(tiny_config, tmp_path, (3,))
    assert [row["step"] for row in rows if row["kind"] == "train"] == [2, 4]


def test_photographs_cropped_in_workers(tiny_config, tmp_path):
    """The ImageNet pipeline: crops, flips and order of the images too are found again."""
    photographs = {split: list(stand_in.examples(12, height=40, width=50)) for split in ("train", "validation")}
    stand_in.prepare_imagenet(str(tmp_path / "data"), photographs)
    settings = small(tiny_config)
    settings.model.width = 2
    settings.data.name, settings.data.dir, settings.data.num_workers = "imagenet2012", str(tmp_path / "data"), 0
    settings.data.batch_size, settings.evaluation.batch_size = 5, 6
    settings.data.label_noise = 0.2
    settings.optimizer.learning_rate, settings.log_every_steps = 1e-3, 5
    rows = interrupted_is_whole(settings, tmp_path, (6,))  # The last window is shorter. An interruption ends no window.
    assert [row["step"] for row in rows if row["kind"] == "train"] == [5, 10, 12]
