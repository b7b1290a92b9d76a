"""Compilers for chips that need not exist here: TPUs (pip install '.[tpu]') and NVIDIA's GPUs.

For a GPU, install the compiler without its libraries, in the version of jax:
``pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12``.
"""

import os
from typing import Any

import jax
from jax.experimental import topologies

CUDA = "cuda"
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""What the compiler must know of an H100. Without a GPU, it cannot try kernels, so its choice of kernels is not tuned."""


def devices(platform: str, topology: str = "v5e:2x4") -> tuple[Any, ...]:
    """Devices to compile for: one core of this CPU, the chips of a TPU topology, or one H100. Call it before jax is used."""
    jax.config.update("jax_platforms", "cpu")
    if platform == "cpu":
        return tuple(jax.devices()[:1])
    if platform == CUDA:
        return tuple(topologies.get_topology_desc(platform=CUDA, target_config=_H100, topology="1x1x1").devices)
    # No TPU exists to ask, or to be held by another program.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    return tuple(topologies.get_topology_desc(platform=platform, topology_name=topology).devices)
