"""What the README shows runs, and the files it names are there."""

import re

import jax.numpy as jnp
from places import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_example_trains():
    (code,) = re.findall(r"```python\n(import jax.*?)```", README, re.DOTALL)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["loss"] < 0.5  # from about 1.1
    assert names["network"]["kernel"].shape == (8, 3)
    assert names["params"]["kernel"].shape == (2, 8, 3)
    assert not jnp.array_equal(*names["params"]["kernel"])


def test_configs_and_links_exist():
    for path in [*re.findall(r"configs/\w+\.py", README), *re.findall(r"\]\(([\w/.]+)[#)]", README)]:
        assert (REPOSITORY / path).exists(), path
    for stem, methods in re.findall(r"`(\w+)_\{([\w,]+)\}`", README):
        for method in methods.split(","):
            assert (REPOSITORY / "configs" / f"{stem}_{method}.py").exists(), (stem, method)
