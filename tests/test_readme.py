"""The code of the README and of the guides runs, and the files that they name exist."""

import re

import guides
import jax.numpy as jnp
import pytest
from places import REPOSITORY

GUIDES = sorted((REPOSITORY / "docs").glob("*.md"))
# Other tests execute the code of these pages and ask what it did: test_nnx_and_equinox, and the tests in tests/examples and tests/merging.
TESTED_ELSEWHERE = {
    "nnx_and_equinox.md",
    "language_models.md",
    "regression.md",
    "detection.md",
    "equinox_digits.md",
    "soups.md",
    "batch_norm_of_averages.md",
    "existing_networks.md",
}
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_example_trains():
    (code,) = re.findall(r"```python\n(import jax.*?)```", README, re.DOTALL)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["loss"] < 0.5  # from about 1.1
    assert names["network"]["kernel"].shape == (8, 3)
    assert names["endpoints"]["kernel"].shape == (2, 8, 3)
    assert not jnp.array_equal(*names["endpoints"]["kernel"])
    assert names["report"].center.accuracy > 0.8
    assert len(names["report"].points) == 21


@pytest.mark.parametrize("guide", sorted(set(guides.with_code()) - TESTED_ELSEWHERE))
def test_the_code_of_a_guide_runs(guide, tmp_path, monkeypatch):
    """All blocks of a page, one after the other, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    guides.execute(guide)


def test_links_of_guides_exist():
    for path in GUIDES:
        for link in re.findall(r"\]\(([\w/.]+)[#)]", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), (path, link)


def test_configs_and_links_exist():
    for path in [*re.findall(r"configs/\w+\.py", README), *re.findall(r"\]\(([\w/.]+)[#)]", README)]:
        assert (REPOSITORY / path).exists(), path
    for stem, methods in re.findall(r"`(\w+)_\{([\w,]+)\}`", README):
        for method in methods.split(","):
            assert (REPOSITORY / "configs" / f"{stem}_{method}.py").exists(), (stem, method)
