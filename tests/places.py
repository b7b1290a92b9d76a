"""Where the tests find what they read."""

import pathlib

REPOSITORY = pathlib.Path(__file__).parent.parent
CONFIGS = REPOSITORY / "configs"
