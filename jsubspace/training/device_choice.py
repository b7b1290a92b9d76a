"""Which devices of the machine compute: all of them, or as many as the settings say and the batches allow."""

import contextlib
import os
from collections.abc import Mapping

import jax

from jsubspace.errors import UsageError
from jsubspace.training.parallel import JIT, PMAP, DataParallel, Partitioned


def use_cpu_cores() -> None:
    """Shows each core to jax as a device if the machine has no accelerator. Call it before jax looks for devices.

    XLA runs a convolution on one core. Two devices on two cores make a step 1.4 to 1.6 times faster.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    # jax refuses once it has looked for devices. This happens in a notebook, whose devices stay as they are.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(cores, 8))


def data_parallel(batch_sizes: Mapping[str, int], num_devices: int = 0, how: str = PMAP) -> DataParallel:
    """Chooses the devices.

    Args:
      batch_sizes: the batch sizes, by name, that must be multiples of the number of devices.
      num_devices: how many devices to use, or 0 for all. CPU devices are only cores. For 0, as many of them are used as
        divide the batches.
      how: how a step runs on them, one of `WAYS`.

    Raises:
      UsageError: if there are fewer devices, or they do not divide a batch.
    """
    hosts = jax.process_count()
    local = len(jax.local_devices())
    if num_devices > local * hosts:
        where = "this machine has" if hosts == 1 else f"these {hosts} hosts have"
        raise UsageError(f"num_devices is {num_devices} but {where} {local * hosts}: {jax.devices()}.")
    if num_devices % hosts:
        raise UsageError(
            f"num_devices is {num_devices}, but it must be a multiple of the {hosts} hosts: each host uses the same number "
            "of devices."
        )
    count = num_devices or local * hosts
    if not num_devices and jax.devices()[0].platform == "cpu":
        fits = (d for d in range(1, local + 1) if all(size % (d * hosts) == 0 for size in batch_sizes.values()))
        count = hosts * max(fits, default=1)
    for name, size in batch_sizes.items():
        if size % count:
            of_hosts = "" if hosts == 1 else f" on {hosts} hosts"
            raise UsageError(
                f"{name} is {size}, which {count} devices{of_hosts} do not divide. Make it a multiple of {count}, or set "
                "num_devices."
            )
    # A host's devices stand next to each other, as its examples do.
    by_host = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    devices = tuple(by_host[i * local + j] for i in range(hosts) for j in range(count // hosts))
    return Partitioned(devices) if how == JIT else DataParallel(devices, pmaps=how == PMAP)
