"""What the machine has on which a program runs."""

import os
import pathlib

import jax

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory() -> int | None:
    """The bytes of memory of this machine or container, or None if they are not known."""
    found = []
    if {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(getattr(os, "sysconf_names", ())):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in _LIMITS:
        path = pathlib.Path(name)
        text = path.read_text().strip() if path.is_file() else ""
        if text.isascii() and text.isdecimal():  # "max" means no limit
            found.append(int(text))
    return min(found, default=None)


def of_accelerator(device: jax.Device) -> int | None:
    """The bytes that jax may use on a device, or None if it does not say. A CPU device does not."""
    return (device.memory_stats() or {}).get("bytes_limit")
