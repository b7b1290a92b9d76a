"""Arrays and data sets of Grain as the data of a problem: every example once an epoch, the same at any start and on any hosts."""

import itertools

import grain
import jax
import numpy as np
import pytest

from jsubspace.data.arrays import ArrayData
from jsubspace.data.from_grain import from_grain
from jsubspace.data.shards import WHOLE_BATCH, Shard
from jsubspace.errors import UsageError

N = 11
X, Y = np.arange(2 * N, dtype=np.float32).reshape(N, 2), np.arange(N, dtype=np.int32)


def examples(n=N):
    return grain.MapDataset.source(range(n)).map(lambda i: (X[i], Y[i]))


def shuffled(seed=3):
    return examples().seed(seed).shuffle()


def stream():
    return shuffled().repeat().to_iter_dataset()


KINDS = {
    "arrays": lambda: ArrayData(train=(X, Y), test=(X, Y), batch_size=4, validation=(X[:3], Y[:3])),
    "indexed": lambda: from_grain(train=shuffled(), test=examples(), batch_size=4, validation=examples(3)),
    "stream": lambda: from_grain(
        train=stream(), test=examples(), batch_size=4, validation=examples(3), steps_per_epoch=3
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def first(batches, count):
    return [tuple(map(np.asarray, batch)) for batch in itertools.islice(batches, count)]


def same(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("kind", ["arrays", "indexed"])
def test_an_epoch_has_every_example_once_in_an_order_of_its_own(kind):
    data = KINDS[kind]()
    assert data.steps_per_epoch == 3
    batches = first(data.train_batches(0, WHOLE_BATCH), 6)
    assert [len(y) for _, y in batches] == [4, 4, 3, 4, 4, 3]
    epochs = [np.concatenate([y for _, y in batches[i : i + 3]]).tolist() for i in (0, 3)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == Y.tolist()
    assert epochs[0] != epochs[1] != Y.tolist()
    for x, y in batches:
        np.testing.assert_array_equal(x, X[y])


@every_kind
def test_it_resumes_at_every_step(kind):
    data, positions = KINDS[kind](), {}
    whole = first(data.train_batches(0, WHOLE_BATCH, None, positions), 8)
    assert bool(positions) == data.is_stream
    for step in range(1, 8):
        again = first(KINDS[kind]().train_batches(step, WHOLE_BATCH, positions.get(step)), 8 - step)
        same(again, whole[step:])


@every_kind
def test_hosts_have_equal_parts_also_if_their_number_changes(kind):
    data, positions = KINDS[kind](), {}
    whole = first(data.train_batches(0, WHOLE_BATCH, None, positions), 6)
    for count in (2, 4):
        parts = [first(data.train_batches(2, Shard(i, count), positions.get(2)), 4) for i in range(count)]
        for step, batch in enumerate(whole[2:]):
            if len(batch[0]) % count:  # Every host reads a batch that the hosts do not divide.
                same([part[step] for part in parts], [batch] * count)
                continue
            joined = tuple(np.concatenate(arrays) for arrays in zip(*(part[step] for part in parts), strict=True))
            same([joined], [batch])


@every_kind
def test_tests_have_every_example_once(kind):
    data = KINDS[kind]()
    assert (data.num_test, data.num_validation) == (N, 3)
    for batches, expected in ((data.test_batches, Y), (data.validation_batches, Y[:3])):
        found = list(batches(WHOLE_BATCH))
        assert {len(mask) for _, mask in found} == {4}
        np.testing.assert_array_equal(np.concatenate([arrays[1][mask] for arrays, mask in found]), expected)
        halves = [list(batches(Shard(i, 2))) for i in range(2)]
        for place, (arrays, mask) in enumerate(found):
            np.testing.assert_array_equal(np.concatenate([half[place][0][1] for half in halves]), arrays[1])
            np.testing.assert_array_equal(np.concatenate([half[place][1] for half in halves]), mask)


def test_an_example_is_augmented_by_its_place_and_not_by_its_device():
    data = ArrayData(
        train=(X, Y), test=(X, Y), batch_size=4, augment=lambda key, x, y: (x + jax.random.uniform(key, x.shape), y)
    )
    batch = next(data.train_batches(0, WHOLE_BATCH))
    whole = data.augment(jax.random.key(0), *batch)
    halves = [data.augment(jax.random.key(0), *(array[i : i + 2] for array in batch)) for i in (0, 2)]
    same([tuple(np.concatenate(arrays) for arrays in zip(*halves, strict=True))], [tuple(map(np.asarray, whole))])
    drawn = np.asarray(whole[0]) - batch[0]
    assert len(np.unique(drawn.round(4), axis=0)) == 4
    same([tuple(map(np.asarray, data.prepare(*batch)))], [batch[:2]])
    same([tuple(map(np.asarray, data.prepare(batch[0])))], [batch[:1]])


def test_without_an_augmentation_no_place_travels():
    assert len(next(KINDS["arrays"]().train_batches(0, WHOLE_BATCH))) == 2
    assert [(leaf.shape, leaf.dtype) for leaf in KINDS["arrays"]().example()] == [((2,), np.float32), ((), np.int32)]


def test_arrays_in_memory_are_those_that_batches_are_made_of():
    data = KINDS["arrays"]()
    for split, rows in (("training", slice(None)), ("test", slice(None)), ("validation", slice(3))):
        same([data.in_memory(split)], [(X[rows], Y[rows])])
        assert KINDS["indexed"]().in_memory(split) is None

    class Other(ArrayData):
        def test_batches(self, shard):
            return iter(())

    data = Other(train=(X, Y), test=(X, Y), batch_size=4)
    assert data.in_memory("test") is None
    assert data.in_memory("validation") is None
    assert data.in_memory("training") is not None


@pytest.mark.parametrize("number", [2**31, 2**32 + 5, -(2**31) - 1, 2**63 - 1, 2**64])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("split", ["train", "test", "validation"])
def test_integers_that_jax_would_change_are_refused(number, place, split):
    """Before, a device had 5 for 2^32 + 5."""
    arrays = [np.arange(N), np.arange(N)]
    splits = {name: tuple(arrays) for name in ("train", "test", "validation")}
    arrays[place] = [*range(N - 1), number]
    with pytest.raises(
        UsageError, match=f"an array of {split} holds the integer {number}, which jax would|type object"
    ):
        ArrayData(**splits | {split: tuple(arrays)}, batch_size=4)


def test_integers_of_64_bits_are_kept_where_jax_keeps_them(x64):
    x = np.array([2**32 + 5, 7])
    data = ArrayData(train=(x,), test=(x,), batch_size=2)
    assert jax.device_put(next(data.test_batches(WHOLE_BATCH))[0][0]).tolist() == [2**32 + 5, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": ([[1.0], [1.0, 2.0]], [0, 1])}, "a member of train is a list that is no array"),
        ({"train": (jax.random.split(jax.random.key(0), N), Y)}, "holds an array of the type key"),
        ({"train": (X.astype(str), Y)}, "holds an array of the type <U"),
        ({"train": (X * 1j, Y)}, "holds an array of the type complex"),
        ({"seed": -1}, "ArrayData: seed is -1, but it must be at least 0"),
        ({"seed": 0.5}, "ArrayData: seed is 0.5, but it must be an integer"),
        ({"augment": 3}, "ArrayData: augment is 3, but it must be a function"),
    ],
)
def test_what_is_no_array_data(options, message):
    with pytest.raises(ValueError, match=message):
        ArrayData(**{"train": (X, Y), "test": (X, Y), "batch_size": 4} | options)


class NoPosition:
    """An iterator that cannot say where it is."""

    def __iter__(self):
        return self

    def __next__(self):
        return X[0], Y[0]


class Stateless(grain.IterDataset):
    """A stream whose iterator has no position."""

    def __iter__(self):
        return NoPosition()


WRONG = {
    "a list": (
        {"train": [(X[0], Y[0])]},
        r"train is a list, which cannot resume at a step\. It must be a grain.MapDataset or",
    ),
    "a generator": ({"train": iter([])}, r"train is a list_iterator, which cannot resume"),
    "a loader": (
        {"train": grain.DataLoader(data_source=range(3), sampler=grain.samplers.SequentialSampler(3))},
        r"train is a DataLoader, which cannot resume",
    ),
    "an iterator of a data set": ({"train": iter(stream())}, r"train is a \w+Iterator, which cannot resume"),
    "a stream for tests": ({"test": stream()}, r"test is a \w+, which cannot resume .*must be a grain.MapDataset\."),
    "no example": ({"train": examples(0)}, r"train has no example\. Give at least one"),
    "no validation example": ({"validation": examples(0)}, r"validation has no example\. Leave it out"),
    "for ever": ({"train": examples().repeat()}, r"train is repeated for ever\. Leave \.repeat\(\) out"),
    "a stream without length": (
        {"train": stream()},
        r"train is a grain.IterDataset, which has no length\. Give steps_per_epoch",
    ),
    "a length twice": ({"steps_per_epoch": 3}, r"steps_per_epoch is for a grain.IterDataset"),
    "too large a batch": ({"batch_size": 12}, r"batch_size is 12\. It must be at least 1 and at most 11"),
    "a stream without a position": (
        {"train": Stateless(), "steps_per_epoch": 3},
        r"cannot resume, because the state of its iterator is nothing that JSON holds: AttributeError",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_data_that_cannot_resume_is_refused(name):
    wrong, message = WRONG[name]
    with pytest.raises(UsageError, match=message):
        from_grain(**({"train": examples(), "test": examples(), "batch_size": 4} | wrong))


ELEMENTS = {
    "dictionaries": (lambda i: {"x": X[i]}, r"an element of train is a dict\..*Add a \.map\(\)"),
    "single arrays": (lambda i: X[i], r"an element of train is a ndarray"),
    "other shapes": (lambda i: (X[i][: 1 + i % 2], Y[i]), r"the examples of train do not form a batch"),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_elements_that_are_no_examples(name):
    function, message = ELEMENTS[name]
    source = grain.MapDataset.source(range(N)).map(function)
    with pytest.raises(UsageError, match=message):
        next(from_grain(train=source, test=examples(), batch_size=4).train_batches(0, WHOLE_BATCH))


def test_filtered_elements_are_refused():
    source = examples().filter(lambda example: example[1] != 2)
    with pytest.raises(UsageError, match=r"an element of train is None\. .*Filter before"):
        next(from_grain(train=source, test=examples(), batch_size=4).train_batches(0, WHOLE_BATCH))


def test_a_stream_that_ends_and_positions_of_other_data():
    short = from_grain(train=examples().to_iter_dataset(), test=examples(), batch_size=4, steps_per_epoch=3)
    with pytest.raises(UsageError, match=r"ended after 2 batches and 3 examples\. .*\.repeat\(\)"):
        first(short.train_batches(0, WHOLE_BATCH), 3)
    data = KINDS["stream"]()
    with pytest.raises(UsageError, match=r"the checkpoint of step 4 has no position"):
        next(data.train_batches(4, WHOLE_BATCH))
    with pytest.raises(UsageError, match=r"cannot resume from the position 'elsewhere' of step 4"):
        next(data.train_batches(4, WHOLE_BATCH, "elsewhere"))


def test_the_order_of_arrays_follows_from_the_seed_of_the_run():
    """An order of one's own stays, and an object that two runs share is not changed."""

    def order(data):
        found = np.concatenate([y for _, y in first(data.train_batches(0, WHOLE_BATCH), 3)])
        full, last = itertools.islice(data.resident.blocks(0, WHOLE_BATCH), 2)  # Two full batches and a smaller one.
        rows = np.concatenate([batch[:, 0] for block in (full, last) for batch in block.rows])
        np.testing.assert_array_equal(data.resident.arrays[1][rows], found)
        return found.tolist()

    splits = {"train": (X, Y), "test": (X, Y), "batch_size": 4}
    free, of_seed = ArrayData(**splits), {seed: ArrayData(**splits, seed=seed) for seed in (0, 3)}
    assert order(of_seed[0]) == Y[np.random.default_rng([0, 0]).permutation(N)].tolist()
    assert order(free.of_run(3)) == order(of_seed[3]) != order(of_seed[0])
    assert order(free.of_run(0)) == order(free) == order(of_seed[0])
    assert of_seed[3].of_run(5) is of_seed[3]
    for kind in ("indexed", "stream"):
        data = KINDS[kind]()
        assert data.of_run(5) is data

    class Reversed(ArrayData):
        def train_batches(self, *args):
            return (tuple(array[::-1] for array in batch) for batch in super().train_batches(*args))

    bound = Reversed(**splits).of_run(3)
    assert bound.resident is None
    assert first(bound.train_batches(0, WHOLE_BATCH), 1)[0][1].tolist() == order(of_seed[3])[:4][::-1]
