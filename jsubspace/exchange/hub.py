"""Saved subspaces on the Hugging Face Hub. It needs the package huggingface-hub, which is imported when it is used."""

import importlib.util
import os
import pathlib
from typing import Any

from jsubspace import arguments
from jsubspace.errors import UsageError, one_line
from jsubspace.exchange import subspace_files
from jsubspace.storage.places import in_bucket, located


def push(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    message: str = "Upload a subspace of networks",
) -> str:
    """Uploads a folder of `jsubspace.save_subspace` in one commit, and returns the address of the commit.

    Other files in the folder are not uploaded. The repository is made if it does not exist.

    Args:
      folder: the folder, on the disk.
      repo_id: the repository, as ``"me/my-line"``.
      private: whether a new repository is private.
      revision: the branch, which must exist. The default is the main branch.
      token: of an account that may write. By default, the token of ``hf auth login`` or of the variable HF_TOKEN.
      message: of the commit.

    Raises:
      UsageError: if the folder holds no subspace, huggingface-hub is not installed, or the Hub refuses or does not answer.
    """
    api = _api(repo_id, token)
    place = located(folder, "folder")
    if in_bucket(place):
        raise UsageError(f"folder is {str(place)!r}, a bucket. Copy the folder to the disk first.")
    subspace_files.check(place)
    try:
        api.create_repo(repo_id, private=arguments.truth("private", private), exist_ok=True)
        found = api.upload_folder(
            folder_path=str(place),
            repo_id=repo_id,
            revision=revision,
            commit_message=message,
            allow_patterns=list(subspace_files.FILES),
        )
    except Exception as error:  # The Hub's errors, the connection's, and refusals of the name have many types.
        raise UsageError(f"cannot upload {place} to {repo_id!r}: {one_line(error)}") from error
    return str(found.commit_url)


def pull(
    repo_id: str, *, revision: str | None = None, token: str | None = None, to: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """Downloads a subspace, and returns its folder for `jsubspace.load_subspace`. No other file of the repository is downloaded.

    Args:
      repo_id: the repository, as ``"me/my-line"``.
      revision: a branch, a tag or a commit. A commit is the safe choice, because a branch can change.
      token: for a private repository, as in `push`.
      to: the folder to download to. The default is the cache of the Hub.

    Raises:
      UsageError: if huggingface-hub is not installed, the Hub refuses or does not answer, or the repository has no subspace.
    """
    api = _api(repo_id, token)
    target = None if to is None else str(located(to, "to"))
    try:
        found = api.snapshot_download(
            repo_id, revision=revision, local_dir=target, allow_patterns=list(subspace_files.FILES)
        )
    except Exception as error:
        raise UsageError(f"cannot download {repo_id!r}: {one_line(error)}") from error
    subspace_files.check(pathlib.Path(found))
    return pathlib.Path(found)


def _api(repo_id: str, token: str | None) -> Any:
    if not isinstance(repo_id, str) or repo_id.count("/") > 1 or not repo_id.strip("/"):
        raise UsageError(f'repo_id is {arguments.described(repo_id)}, but it must be a repository, as in "me/my-line".')
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UsageError(
            "push and pull need the package huggingface-hub. Install it (pip install huggingface-hub), or copy the folder by other "
            "means."
        )
    import huggingface_hub

    return huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
