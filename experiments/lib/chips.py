"""The fastest products of matrices that a chip is made for, from the data sheets of its maker."""

DENSE_TFLOPS: tuple[tuple[str, float, float], ...] = (
    ("B200", 2250, 1125),
    ("H100 PCIe", 756, 378),
    ("H100 NVL", 835, 417.5),
    ("H100", 989.4, 494.7),
    ("H200", 989.4, 494.7),
    ("GH200", 989.4, 494.7),
    ("A100", 312, 156),
    ("L40S", 362, 183),
    ("L4", 121, 60),
    ("A10G", 70, 35),
    ("A10", 125, 62.5),
    ("RTX 4090", 165.2, 82.6),
    ("RTX 3090", 71, 35.6),
    ("V100", 125, 15.7),
    ("T4", 65, 8.1),
)
"""A part of a device's name, and its peak in TFLOP/s without sparsity.

The first number is for bfloat16 (float16 on the V100 and T4), the second for float32 as jax computes it: TF32 where a chip has it.
The first entry that fits counts.
"""


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """The largest number of floating-point operations per second of a device, or None for a device that is not listed.

    Example:
      >>> peak_flops("NVIDIA H100 80GB HBM3", "bfloat16"), peak_flops("NVIDIA H100 PCIe", "float32"), peak_flops("cpu", "float32")
      (989400000000000.0, 378000000000000.0, None)
    """
    for part, half, single in DENSE_TFLOPS:
        if part in device_kind:
            return 1e12 * (half if dtype == "bfloat16" else single)
    return None
