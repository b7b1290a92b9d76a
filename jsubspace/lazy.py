"""Packages that import a module when somebody asks for it, so that importing the library stays light."""

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any


def modules(
    package: str, paths: Iterable[str], moved: Mapping[str, str] = MappingProxyType({}), **homes: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package, by which its modules are its attributes without being imported first.

    Args:
      package: the package's ``__name__``.
      paths: the package's ``__path__``.
      moved: former names of modules, each with its present place in the package. The former name still works and warns.
      homes: further attributes, each with the module of the package that defines it.

    Example:
      >>> from jsubspace import evaluation
      >>> "metrics" in dir(evaluation)
      True
      >>> evaluation.metrics.__name__
      'jsubspace.evaluation.metrics'
      >>> evaluation.metric
      Traceback (most recent call last):
      AttributeError: module 'jsubspace.evaluation' has no attribute 'metric'
    """
    found = {module.name for module in pkgutil.iter_modules(paths)}

    def get(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        if name in moved:
            place = f"{package}.{moved[name]}"
            warnings.warn(f"{package}.{name} has moved to {place}.", DeprecationWarning, stacklevel=2)
            return importlib.import_module(place)
        if name in found:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *found, *homes})

    return get, names
