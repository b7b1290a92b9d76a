"""Packages that import a module when somebody asks for it, so that importing the library stays light."""

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any


def modules(
    package: str,
    paths: Iterable[str],
    inside: Sequence[str] = (),
    former: Mapping[str, str] = MappingProxyType({}),
    elsewhere: Mapping[str, str] = MappingProxyType({}),
    **homes: str,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package, by which its modules are its attributes without being imported first.

    Args:
      package: the package's ``__name__``.
      paths: the package's ``__path__``.
      inside: packages inside of the package. An attribute with the name of one of their modules works, and warns that the
        module has moved there. Such an attribute is the only way that works: ``import package.name`` does not.
      former: further former names of modules, each with the module's place in the package.
      elsewhere: further attributes that another package defines, each with its full name, where users look for them here.
      homes: further attributes, each with the module of the package that defines it.

    Example:
      >>> from jsubspace import evaluation
      >>> "metrics" in dir(evaluation)
      True
      >>> evaluation.metrics.__name__
      'jsubspace.evaluation.metrics'
      >>> evaluation.unknown
      Traceback (most recent call last):
      AttributeError: module 'jsubspace.evaluation' has no attribute 'unknown'
    """
    found = {module.name for module in pkgutil.iter_modules(paths)}

    def moved_to(name: str) -> str | None:
        for outer in inside:
            modules = pkgutil.iter_modules(f"{path}/{outer}" for path in paths)
            if name in {module.name for module in modules}:
                return f"{outer}.{name}"
        return None

    def get(name: str) -> Any:
        if name in elsewhere:
            module, _, attribute = elsewhere[name].rpartition(".")
            return getattr(importlib.import_module(module), attribute)
        if name in homes:
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        if name not in found and (place := former.get(name) or moved_to(name)):
            place = f"{package}.{place}"
            warnings.warn(f"{package}.{name} has moved to {place}.", DeprecationWarning, stacklevel=2)
            return importlib.import_module(place)
        if name in found:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *found, *homes, *elsewhere})

    return get, names
