"""Flags of XLA for programs that run once: LLVM optimises nothing, which takes a quarter of the time.

Each program is compiled in one piece, and jaxlib 0.10 emits fusions by its older and quicker emitters. XLA's own passes, which
decide what is fused and what travels between devices, stay.
"""

import importlib.metadata

FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later versions refuse the flag
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
