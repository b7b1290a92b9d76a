"""Every optimizer, transform and wrapper that optax exports, made with settings that do something on a few small leaves.

A name of optax that is in no table here makes `test_optimizers` fail.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from optax import contrib

FAST = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1))
"""What the wrappers wrap: it is wrong for stacked endpoints."""


def matrices(tree):
    """The mask of every GPT script: no weight decay for biases and scales."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, tree)


def two_axes(tree):
    return jax.tree.map(lambda leaf: contrib.MuonDimensionNumbers(), tree)


def by_rank(tree):
    return jax.tree.map(lambda leaf: "matrix" if leaf.ndim >= 2 else "vector", tree)


def by_learning_rate(home, *names):
    return {name: functools.partial(getattr(home, name), 0.1) for name in names}


def by_default(home, *names):
    return {name: getattr(home, name) for name in names}


GROUPS = {"matrix": FAST, "vector": optax.sgd(0.1)}

OF_OPTAX = {
    **by_learning_rate(
        optax,
        *("adabelief", "adadelta", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad", "fromage", "lamb"),
        *("lars", "lion", "nadam", "nadamw", "novograd", "optimistic_adam", "optimistic_adam_v2"),
        *("optimistic_gradient_descent", "radam", "rmsprop", "rprop", "scale_by_rprop", "sgd", "sign_sgd", "signum", "sm3"),
        *("yogi", "scale", "ema", "trace", "clip", "adaptive_grad_clip", "clip_by_block_rms", "clip_by_global_norm"),
        *("add_decayed_weights", "scale_by_learning_rate"),
    ),
    **by_default(
        optax,
        *("adafactor", "apply_every", "centralize", "identity", "keep_params_nonnegative"),
        *("normalize_by_update_norm", "polyak_sgd", "scale_by_adadelta", "scale_by_adam", "scale_by_adamax"),
        *("scale_by_adan", "scale_by_amsgrad", "scale_by_belief", "scale_by_distance_over_gradients"),
        *("scale_by_factored_rms", "scale_by_lion", "scale_by_novograd", "scale_by_optimistic_gradient"),
        *("scale_by_param_block_norm", "scale_by_param_block_rms", "scale_by_polyak", "scale_by_radam", "scale_by_rms"),
        *("scale_by_rss", "scale_by_sign", "scale_by_sm3", "scale_by_stddev", "scale_by_trust_ratio", "scale_by_yogi"),
        *("set_to_zero", "zero_nans"),
    ),
    "noisy_sgd": lambda: optax.noisy_sgd(0.1, key=3),
    "lbfgs": lambda: optax.lbfgs(memory_size=2, linesearch=optax.scale_by_backtracking_linesearch(3)),
    "scale_by_lbfgs": lambda: optax.scale_by_lbfgs(memory_size=2),
    "adafactor, factored": lambda: optax.adafactor(0.1, min_dim_size_to_factor=2),
    "adamw, masked": lambda: optax.adamw(0.1, weight_decay=0.5, mask=matrices),
    "add_noise": lambda: optax.add_noise(0.1, 0.5, key=3),
    "apply_if_finite": lambda: optax.apply_if_finite(FAST, 3),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.add_decayed_weights(0.1, matrices), optax.adam(0.1)),
    "conditionally_mask": lambda: optax.conditionally_mask(FAST, lambda step: step % 2 == 0),
    "conditionally_transform": lambda: optax.conditionally_transform(FAST, lambda step: step % 2 == 0),
    "flatten": lambda: optax.flatten(FAST),
    "freeze": lambda: optax.freeze({"bias": False, "kernel": True}),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adamw)(lambda count: 0.1 / (count + 1), mask=None),
    "inject_stateful_hyperparams": lambda: optax.inject_stateful_hyperparams(optax.sgd)(0.1, momentum=0.9),
    "masked": lambda: optax.masked(FAST, matrices),
    "measure_with_ema": lambda: optax.monitor({"norm": optax.measure_with_ema(optax.tree.norm, 0.9)}),
    "monitor": lambda: optax.monitor({"norm": optax.tree.norm}),
    "multi_transform": lambda: optax.multi_transform(GROUPS, by_rank),
    "named_chain": lambda: optax.named_chain(("clip", optax.clip_by_global_norm(0.5)), ("adam", optax.adam(0.1))),
    "partition": lambda: optax.partition(GROUPS, by_rank),
    "scale_by_backtracking_linesearch": lambda: optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(3)),
    "scale_by_schedule": lambda: optax.scale_by_schedule(lambda count: 0.1 / (count + 1)),
    "scale_by_zoom_linesearch": lambda: optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(2)),
    "selective_transform": lambda: optax.selective_transform(FAST, freeze_mask=lambda tree: jax.tree.map(lambda on: not on, matrices(tree))),
    "snapshot": lambda: optax.snapshot("norm", optax.tree.norm),
    "stateless": lambda: optax.stateless(lambda updates, params: jax.tree.map(lambda u: u / optax.tree.norm(updates), updates)),
    "stateless_with_tree_map": lambda: optax.stateless_with_tree_map(lambda update, param: update / jnp.sum(update**2)),
    "with_extra_args_support": lambda: optax.with_extra_args_support(FAST),
    "MultiSteps": lambda: optax.MultiSteps(optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1, mask=matrices)), 2),
    "skip_not_finite": lambda: optax.MultiSteps(FAST, 2, should_skip_update_fn=optax.skip_not_finite),
    "skip_large_updates": lambda: optax.MultiSteps(
        FAST, 1, should_skip_update_fn=lambda *args: optax.skip_large_updates(*args, max_squared_norm=2.0)
    ),
}  # fmt: skip

OF_CONTRIB = {
    **by_learning_rate(
        contrib,
        *("acprop", "ademamix", "adopt", "cocob", "dadapt_adamw", "madgrad", "momo", "momo_adam", "muon", "prodigy"),
        *("scale_by_madgrad", "simplified_ademamix", "dog", "dowg", "sophia"),
    ),
    **by_default(
        contrib,
        *("normalize", "scale_by_acprop", "scale_by_ademamix", "scale_by_adopt", "scale_by_cocob"),
        *("scale_by_simplified_ademamix", "schedule_free_adamw", "schedule_free_sgd"),
    ),
    "differentially_private_aggregate": lambda: contrib.differentially_private_aggregate(1.0, 0.1, key=3),
    "dpsgd": lambda: contrib.dpsgd(0.1, 1.0, 0.1, seed=3),
    "galore": lambda: contrib.galore(0.1, rank=2, update_proj_gap=2),
    "scale_by_galore": lambda: contrib.scale_by_galore(rank=2, update_proj_gap=2),
    "scale_by_muon": lambda: optax.masked(contrib.scale_by_muon(weight_dimension_numbers=two_axes), matrices),
    "mechanize": lambda: contrib.mechanize(FAST),
    "reduce_on_plateau": lambda: optax.chain(FAST, contrib.reduce_on_plateau(patience=1)),
    "sam": lambda: contrib.sam(FAST, optax.chain(contrib.normalize(), optax.sgd(0.05)), sync_period=2),
    "schedule_free": lambda: contrib.schedule_free(FAST, 0.1),
    "split_real_and_imaginary": lambda: contrib.split_real_and_imaginary(FAST),
}

EXTRA = {
    **dict.fromkeys(("lbfgs", "scale_by_backtracking_linesearch", "scale_by_zoom_linesearch"), ("value", "grad", "value_fn")),
    **dict.fromkeys(("polyak_sgd", "scale_by_polyak", "momo", "momo_adam", "reduce_on_plateau"), ("value",)),
    "sophia": ("obj_fn",),
}  # fmt: skip
"""The extra arguments that some of them take."""

PER_EXAMPLE = ("differentially_private_aggregate", "dpsgd")
"""They take gradients with an axis of examples."""

EXCEPTIONS = {
    "lookahead": "its parameters are pairs, so they differ from the gradients. It works around per_endpoint.",
}
"""Optimizers that `per_endpoint` does not serve, each with the reason."""

NO_OPTIMIZERS = {
    "GradientTransformation", "GradientTransformationExtraArgs", "MaskOrFn", "OptState", "Params",
    "ScalarOrSchedule", "Schedule", "Updates", "WrappedSchedule", "apply_updates", "bias_correction",
    "constant_schedule", "convex_kl_divergence", "cosine_decay_schedule", "cosine_distance",
    "cosine_onecycle_schedule", "cosine_similarity", "ctc_loss", "ctc_loss_with_forward_probs", "exponential_decay",
    "generalized_kl_divergence", "global_norm", "hinge_loss", "huber_loss", "hutchinson_estimator_diag_hessian",
    "incremental_update", "init_empty_state", "join_schedules", "kl_divergence", "l2_loss",
    "linear_onecycle_schedule", "linear_schedule", "log_cosh", "matrix_inverse_pth_root", "microbatch",
    "multi_normal", "nnls", "ntxent", "per_example_global_norm_clip", "per_example_layer_norm_clip",
    "periodic_update", "piecewise_constant_schedule", "piecewise_interpolate_schedule", "polynomial_schedule",
    "power_iteration", "safe_increment", "safe_int32_increment", "safe_norm", "safe_root_mean_squares",
    "safe_softmax_cross_entropy", "scale_gradient", "schedule_free_eval_params", "sgdr_schedule",
    "sigmoid_binary_cross_entropy", "sigmoid_focal_loss", "smooth_labels", "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels", "squared_error", "tree_map_params", "update_infinity_moment",
    "update_moment", "update_moment_per_elem_norm", "value_and_grad_from_state", "warmup_constant_schedule",
    "warmup_cosine_decay_schedule", "warmup_exponential_decay_schedule",
}  # fmt: skip
"""Losses, schedules, arithmetic and types. (Classes without an ``update``, as of states, are left out by the test.)"""
