"""A plain network on the disk, as safetensors or Orbax, for programs that know nothing about subspaces.

The files hold data and no code. A network is a dictionary of dictionaries of arrays, as in Flax:
``{"params": ..., "batch_stats": ...}``. In a safetensors file an array's name is its path, like
``params/block0/conv1/kernel``. Facts about the network are stored with it, as JSON.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jsubspace.errors import UsageError
from jsubspace.exchange import orbax_trees, tensor_header
from jsubspace.storage import documents, files
from jsubspace.storage.places import in_bucket, located
from jsubspace.storage.schema import Record

Network = dict[str, Any]

SUFFIX = ".safetensors"

DIGEST = "sha256"
"""The fact that `save` adds: a digest of all names and arrays, which `load` checks."""

FACTS = "facts.json"

FACTS_BYTES = 2**26
"""The largest size of `FACTS`."""


def check_target(path: pathlib.Path) -> None:
    """Checks that `save` can write to ``path``. Call it before the work of making a network.

    Raises:
      UsageError: if ``path`` exists, its parent does not, or its name belongs to another format.
    """
    if path.suffix not in ("", SUFFIX):
        raise UsageError(f"{path} is neither a safetensors file ({path.stem}{SUFFIX}) nor a folder ({path.stem}).")
    if (path.exists() or path.is_symlink()) and not files.is_unfinished(path):
        raise UsageError(f"{path} exists. Choose another name, or delete it.")
    if in_bucket(path):
        try:
            files.check_writable(path.parent)
        except OSError as error:
            raise UsageError(f"cannot write to {path.parent}: {error}. Choose another name.") from error
    elif not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path.parent} is not a folder that can be written. Make the folder first.")


def save(path: str | pathlib.Path, network: Network, facts: Mapping[str, Any] | None = None) -> None:
    """Writes a network completely or not at all.

    Args:
      path: ``NAME.safetensors``, or a folder for Orbax, on the disk or in a bucket (``gs://bucket/NAME``). The folder gets the network in its subfolder ``network`` and the
        facts beside it.
      network: dictionaries of arrays. Names have no slash. Lists of arrays or of dictionaries may be inside (see `flatten`).
      facts: values that JSON can hold, by name. JSON has no NaN and no infinity.

    Raises:
      UsageError: if ``path`` exists or cannot be written.
      ValueError: for a network of another form, or a fact that JSON cannot hold or that is the digest of another network.
    """
    path = located(path, "the network's file")
    check_target(path)
    arrays = flatten(network)
    if not arrays:
        raise ValueError("the network has no array, so there is nothing to save.")
    facts, texts = _as_texts(facts or {}, digest(arrays))
    try:
        if path.suffix == SUFFIX:
            tensor_header.write(path, arrays, texts)
        else:
            with files.new_folder(path) as folder:
                orbax_trees.save(folder / "network", unflatten(arrays))
                files.write_text(folder / FACTS, json.dumps(facts, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error}.") from error


def load(path: str | pathlib.Path) -> tuple[Network, dict[str, Any]]:
    """A network and its facts, from a file of `save` or from any safetensors file in which names are paths.

    Nothing in the file is executed, and nothing is written.

    Raises:
      UsageError: if the file does not exist, is damaged, or holds no network.

    Example:
      >>> import tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.safetensors"
      >>> save(path, {"params": {"dense": {"kernel": np.eye(2, dtype=np.float32)}}}, {"alpha": 0.5})
      >>> network, facts = load(path)
      >>> network["params"]["dense"]["kernel"].shape, facts["alpha"]
      ((2, 2), 0.5)
    """
    path = located(path, "the network's file")
    if files.is_unfinished(path):
        raise UsageError(
            f"{path} is not complete: whoever wrote it was interrupted. Write it again, with the same command."
        )
    if path.is_dir() and (path / "network").is_dir():
        arrays, facts = _load_folder(path)
    elif path.is_file():
        arrays, facts = _load_file(path)
    else:
        raise UsageError(f"{path} is neither a safetensors file nor a folder with a network. See jsubspace.export.")
    if DIGEST in facts and facts[DIGEST] != digest(arrays):
        raise UsageError(f"{path} is damaged: its arrays have changed since they were written.")
    return unflatten(arrays), facts


def flatten(network: Network) -> dict[str, np.ndarray]:
    """Arrays by their paths, ``{"params/dense/kernel": ...}``: the inverse of `unflatten`.

    The elements of a list have the names 0, 1, 2, as in ``"params/blocks/0/kernel"``. So do keys that are integers, which
    Flax nnx has for lists. `unflatten` makes dictionaries of them.

    Raises:
      ValueError: for anything but dictionaries and lists of arrays, an array of another dtype than `tensor_header.DTYPES`, a name with
        a slash, two keys of one name, or dictionaries that are nested deeper than `documents.DEPTH`.

    Example:
      >>> sorted(flatten({"blocks": [{"kernel": np.ones(2)}, {"kernel": np.ones(2)}]}))
      ['blocks/0/kernel', 'blocks/1/kernel']
    """
    if not isinstance(network, Mapping):
        raise ValueError(
            f"the network is a {type(network).__name__}. A network is a dictionary of arrays, such as "
            '{"params": nnx.state(model, nnx.Param)} in Flax nnx.'
        )
    return _flatten(network, documents.DEPTH)


def _flatten(network: Any, deepest: int) -> dict[str, np.ndarray]:
    if not deepest:
        raise ValueError(f"the network has dictionaries that are nested deeper than {documents.DEPTH}.")
    flat: dict[str, np.ndarray] = {}
    for name, value in _entries(network).items():
        if isinstance(value, Mapping | list | tuple):
            flat |= {f"{name}/{inner}": leaf for inner, leaf in _flatten(value, deepest - 1).items()}
        elif hasattr(value, "shape") and hasattr(value, "dtype"):
            check_dtype(name, value)
            # safetensors would write the memory of a transposed array as if it were not transposed.
            flat[name] = np.ascontiguousarray(value).reshape(value.shape)
        else:
            raise ValueError(
                f"{name} is a {type(value).__name__}. A network is made of dictionaries, lists and arrays."
            )
    return flat


def check_dtype(name: str, array: Any) -> None:
    """Raises a ValueError if a file of arrays cannot hold an array. ``name`` is for the message."""
    if array.dtype not in tensor_header.DTYPES.values():
        known = ", ".join(map(str, tensor_header.DTYPES.values()))
        raise ValueError(f"{name} has elements of type {array.dtype}. A network has {known}.")


def _entries(network: Any) -> dict[str, Any]:
    """What a dictionary or list holds, by names. An integer is a name, too."""
    entries: dict[str, Any] = {}
    for key, value in network.items() if isinstance(network, Mapping) else enumerate(network):
        name = str(key) if isinstance(key, int) and not isinstance(key, bool) else key
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"{name!r} cannot be a name in a network: names are words without a slash.")
        if name in entries:
            raise ValueError(f"the network has two keys {name!r}, a text and an integer. Rename one of them.")
        entries[name] = value
    return entries


def unflatten(arrays: Mapping[str, np.ndarray]) -> Network:
    """Dictionaries of arrays from arrays by their paths.

    Raises:
      UsageError: if a part of a path is empty, or a path is the beginning of another path.
    """
    network: Network = {}
    for path, array in arrays.items():
        *folders, name = path.split("/")
        place = network
        for depth, folder in enumerate(folders, start=1):
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                array_path, inside = "/".join(folders[:depth]), "/".join((*folders[depth:], name))
                raise UsageError(
                    f"{path!r} cannot be stored: {array_path!r} is already an array, so it cannot contain {inside!r}."
                )
        if name in place or not all((*folders, name)):
            raise UsageError(
                f"{path!r} cannot be the path of an array in a network: a part of it is empty, it occurs twice, or another "
                "path begins with it."
            )
        place[name] = array
    return network


def _load_file(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        header = tensor_header.read(path)
        tensor_header.check_memory(header)
        with path.open("rb") as file:
            arrays = {name: tensor_header.array(file, header, name) for name in header.arrays}
        return arrays, {name: _fact(text) for name, text in header.texts.items()}
    except (OSError, ValueError, MemoryError) as error:
        raise UsageError(f"{path} is not a safetensors file of a network, or damaged: {error}.") from error


def _load_folder(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    network = orbax_trees.load(path / "network")
    facts = {}
    if (path / FACTS).exists():
        facts = documents.read(path / FACTS, FACTS_BYTES, "Restore it, or delete it to do without facts.", Record({}))
    try:
        return flatten(network), facts
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is damaged or holds no network: {error}") from error


def _as_texts(facts: Mapping[str, Any], digest: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The facts with the digest, and each as JSON."""
    if facts.get(DIGEST, digest) != digest:
        raise ValueError(
            f"the facts have a {DIGEST}, and it is not the digest of this network. Leave it out: it is added to the facts."
        )
    facts = {**facts, DIGEST: digest}
    texts = {}
    for name, fact in facts.items():
        try:
            texts[name] = json.dumps(fact, allow_nan=False)
            documents.from_json(texts[name])
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the fact {name!r} cannot be stored as JSON: {error}.") from error
        if not isinstance(name, str):
            raise ValueError(f"{name!r} cannot be the name of a fact: names are text.")
    return facts, texts


def _fact(text: str) -> Any:
    try:
        return documents.from_json(text)
    except ValueError:
        return text  # The metadata of another program is not always JSON.


def digest(arrays: Mapping[str, Any]) -> str:
    """The fact `DIGEST` of arrays by name. Arrays of devices are copied to the host one after the other."""
    total = Digest()
    for name in sorted(arrays):
        total.add(name, arrays[name])
    return total.text


class Digest:
    """The digest of arrays that come one after the other, in the order of their names."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()

    def add(self, name: str, array: Any) -> None:
        """Takes one array in."""
        self._total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        self._total.update(tensor_header.contents(array))

    @property
    def text(self) -> str:
        """The digest of all arrays so far."""
        return self._total.hexdigest()
