"""The paper's optimizer: SGD with momentum, coupled weight decay, warm-up and a cosine."""

import optax


def warmup_cosine(learning_rate: float, warmup: int, total: int) -> optax.Schedule:
    """``t -> learning rate`` for t = 0, ..., total - 1, in steps or in epochs.

    lr (t + 1) / warmup while t < warmup, then lr (1 + cos(pi (t - warmup) / (total - warmup))) / 2: the
    authors' formula, in which the first step already has lr / warmup and not 0.

    Raises:
      ValueError: unless 0 <= warmup < total.
    """
    if not 0 <= warmup < total:
        raise ValueError(f"warmup is {warmup} and total is {total}; the warm-up must leave something to train.")
    cosine = optax.cosine_decay_schedule(learning_rate, total - warmup)
    if warmup == 0:
        return cosine
    ramp = optax.linear_schedule(learning_rate / warmup, learning_rate, max(warmup - 1, 1))
    return optax.join_schedules([ramp, cosine], [warmup])


def per_epoch(schedule: optax.Schedule, steps_per_epoch: int) -> optax.Schedule:
    """A schedule over epochs as one over steps: constant within an epoch, as in the authors' program."""
    return lambda step: schedule(step // steps_per_epoch)


def sgd(learning_rate: optax.ScalarOrSchedule, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD with momentum, the decay added to the gradient of every parameter of every endpoint (as PyTorch's SGD does).

    Elementwise throughout, so on stacked endpoints it acts on each as on a network of its own.
    """
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum))
