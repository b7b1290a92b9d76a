"""The records of a split on the disk: encoded images with their labels, read one by one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jsubspace.data import jpeg
from jsubspace.data.sets import DataSet
from jsubspace.errors import UsageError

_FIX = "Delete the folder and prepare the data set again."


@dataclasses.dataclass(frozen=True)
class Records:
    """One split on the disk.

    Attributes:
      source: ``source[i]``, i < len, is a serialised ``tf.Example`` of image, label and file name.
      where: the name of the split and its folder, for messages.
      data_set: the facts about the data set.
      rows: the records that belong to a part of the split, in order, or None for the whole split.
    """

    source: Any
    where: str
    data_set: DataSet
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.source if self.rows is None else self.rows)

    def read(self, i: int) -> tuple[str, bytes, int]:
        """The name of record i for messages, its encoded image and its label.

        TFDS would parse the record as well, but takes four times as long, which is 6 % of the time of decoding.
        """
        from tensorflow_datasets.proto import tf_example_pb2

        row = i if self.rows is None else int(self.rows[i])
        name = f"example {row} of {self.where}"
        try:
            features = tf_example_pb2.Example.FromString(self.source[row]).features.feature
            name += f" ({features['file_name'].bytes_list.value[0].decode()})"
            encoded, label = features["image"].bytes_list.value[0], features["label"].int64_list.value[0]
        except Exception as error:
            raise UsageError(f"{name} cannot be read ({error}). {_FIX}") from error
        if not 0 <= label < self.data_set.num_classes:
            raise UsageError(f"{name} has the label {label}, not one of 0 to {self.data_set.num_classes - 1}. {_FIX}")
        return name, encoded, label

    def image(self, i: int, crop: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, int]:
        """``crop`` of the decoded image i, and its label."""
        name, encoded, label = self.read(i)
        try:
            return crop(jpeg.decode(encoded)), label
        except Exception as error:
            raise UsageError(f"{name} is not a readable image ({error}). {_FIX}") from error


def open_split(builder: Any, split: str, data_set: DataSet) -> Records:
    """The records of a split of a prepared data set.

    Raises:
      UsageError: if the data set was prepared without this split.
    """
    import tensorflow_datasets as tfds

    if split not in builder.info.splits:
        raise UsageError(
            f"{builder.data_path} has no {split} split. Delete the folder and prepare {data_set.name} again with all its "
            f"archives: {', '.join(data_set.archives)}."
        )
    source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    return Records(source, f"{split} in {builder.data_path}", data_set)
