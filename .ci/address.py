"""The repository's address, in one place: ``python .ci/address.py NEW`` writes a new one into every file that names it.

The address is a placeholder until the repository is public. docs/release.md says when to change it.
"""

import pathlib
import re
import subprocess
import sys

ADDRESS = "github.com/jsubspace/jsubspace"

REPOSITORY = pathlib.Path(__file__).parent.parent
PARTS = ("github.com/{user}/{name}", "github/{user}/{name}", "{user}.github.io/{name}")
"""How files name the address: itself, in addresses of Colab and of badges, and as the address of the pages."""


def renamed(text: str, new: str) -> str:
    """The text with the address NEW in the place of the present one."""
    (user, name), (new_user, new_name) = (address.split("/")[1:] for address in (ADDRESS, new))
    for part in PARTS:
        text = text.replace(part.format(user=user, name=name), part.format(user=new_user, name=new_name))
    return text


def main(new: str) -> None:
    """Writes the address NEW into every file of the repository that names the present one, and prints the files."""
    new = new.removeprefix("https://").rstrip("/")
    if not re.fullmatch(r"github\.com/[\w.-]+/[\w.-]+", new):
        sys.exit(f"error: {new!r} is no address of a repository. Expected github.com/USER/NAME.")
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for path in (REPOSITORY / name for name in listed.splitlines()):
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue  # a picture, or a file that was deleted
        if renamed(text, new) != text:
            path.write_text(renamed(text, new), encoding="utf-8")
            print(path.relative_to(REPOSITORY))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python .ci/address.py github.com/USER/NAME")
    main(sys.argv[1])
