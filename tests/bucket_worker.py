"""Runs commands on a bucket, and kills them between two of its changes. Every command is a process of its own.

It is forked from a process that has done the imports. The emulator of a bucket is a package. Its quirks are dealt with here and
in no other place: its address, the requests for a kind of bucket that it does not know (gcsfs would wait for them for a
minute), and what a download does not say.
"""

import contextlib
import gc
import hashlib
import importlib
import json
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from typing import Any

from forked_commands import IMPORTS, LATER_IMPORTS

BUCKET = "bucket"
CHANGES = ("write_bytes", "unlink", "copy")
"""The methods of a bucket's path by which this library changes the bucket."""


def serve(port: int) -> None:
    """Is a bucket until the process is ended."""
    from gcp_storage_emulator.handlers import objects

    plain = objects.download

    def download(request: Any, response: Any, storage: Any, *args: Any, **options: Any) -> None:
        """Says which generation of the object is downloaded. Without it, TensorStore cannot write after it has read."""
        plain(request, response, storage, *args, **options)
        if response.status < 300:
            found = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
            response["x-goog-generation"] = found["generation"]

    objects.download = download
    from gcp_storage_emulator.server import create_server

    create_server("localhost", port, in_memory=True, default_bucket=BUCKET).run()


class Bucket:
    """An empty bucket, and a worker that runs commands in the folder ``cwd``, with the code of ``checkout``."""

    def __init__(self, checkout: pathlib.Path, cwd: pathlib.Path) -> None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        address = f"http://localhost:{port}"
        own = {
            "PYTHONPATH": os.pathsep.join(map(str, (checkout, checkout / "tests"))),
            "JAX_PLATFORMS": "cpu",
            "MPLBACKEND": "agg",
            "STORAGE_EMULATOR_HOST": address,
            "TENSORSTORE_GCS_HTTP_URL": address,
            "EPATH_USE_TF": "false",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }
        start = [sys.executable, str(pathlib.Path(__file__))]
        self._server = subprocess.Popen([*start, str(port)], env=os.environ | own, stderr=subprocess.DEVNULL)
        self._worker = subprocess.Popen(
            start, cwd=cwd, env=os.environ | own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("localhost", port)):
                break
            time.sleep(0.05)

    def run(self, *argv: str, die: tuple[str, str, int] | None = None, after: float = 0.0) -> tuple[int, str]:
        """The exit code and the output of ``python -m`` with these words.

        Args:
          die: ``("before" or "after", part, n)``: the command kills itself at the n-th change whose path has this part in it.
          after: the command is killed after these seconds, unless they are 0.
        """
        return tuple(self._ask({"argv": argv, "die": die, "after": after}))

    def ask(self, question: str, *words: str, die: tuple[str, str, int] | None = None) -> Any:
        """What the function of this file with that name returns, as JSON, or None if it was killed as by `run`."""
        return self._ask({"question": question, "words": words, "die": die})

    def end(self) -> None:
        """Ends both processes."""
        self._worker.communicate()
        self._server.kill()
        self._server.wait()

    def _ask(self, order: dict[str, Any]) -> Any:
        self._worker.stdin.write(json.dumps(order) + "\n")  # type: ignore[union-attr]
        self._worker.stdin.flush()  # type: ignore[union-attr]
        return json.loads(self._worker.stdout.readline())  # type: ignore[union-attr]


def names(folder: str) -> list[str]:
    """The paths of all objects in a folder, from there."""
    from jsubspace.storage import files, places

    root = places.located(folder, "folder")
    return [path.relative_to(root).as_posix() for path in files.all_files(root)]


def end_of(folder: str) -> dict[str, Any]:
    """Everything about a finished run that must be the same wherever it was trained."""
    import jax
    import numpy as np

    from experiments.lib import ends
    from jsubspace.runs import build, config_files, results
    from jsubspace.storage import places, writer
    from jsubspace.storage.checkpoint import Checkpoints

    workdir = places.located(folder, "folder")
    run = build.build(config_files.load(workdir))
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state, notes = checkpoints.restore(jax.eval_shape(run.init_state), run.devices.replicated)
    found = results.read(workdir)
    assert found is not None
    return {
        "state": [hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest() for leaf in jax.tree.leaves(state)],
        "journal": notes["journal"],
        "metrics": [
            {name: row[name] for name in row if name != "images_per_second"} for row in writer.read_rows(workdir)
        ],
        "results": {name: found[name] for name in ("points", "ensembles", "endpoints", "finished")},
        "TensorBoard": ends.points(workdir),
    }


def network(path: str) -> list[str]:
    """The digest of an exported network, and the names of its facts."""
    from jsubspace.exchange import network_files

    _, facts = network_files.load(path)
    return [facts[network_files.DIGEST], *sorted(facts)]


def refusal(path: str) -> str:
    """The message of an error about a network that cannot be read."""
    from jsubspace.errors import UsageError
    from jsubspace.exchange import network_files

    try:
        network_files.load(path)
    except UsageError as error:
        return str(error)
    return ""


def restored(folder: str) -> int:
    """The step of the newest checkpoint of a run that is not damaged, as training looks for it."""
    import jax

    from jsubspace.runs import build, config_files
    from jsubspace.storage import places
    from jsubspace.storage.checkpoint import Checkpoints

    workdir = places.located(folder, "folder")
    run = build.build(config_files.load(workdir))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return int(checkpoints.restore(jax.eval_shape(run.init_state), run.devices.replicated)[0].step)


def unevaluated(folder: str, to: str) -> None:
    """Copies all objects of a run except its results. A byte of its newest checkpoint changes on the way."""
    from jsubspace.storage import files, places

    source, target = places.located(folder, "folder"), places.located(to, "to")
    content = {path.relative_to(source).as_posix(): path.read_bytes() for path in files.all_files(source)}
    del content["results.json"]
    arrays = [name for name in content if "/state/ocdbt.process_0/d/" in name]
    damaged = max(arrays, key=lambda name: (int(name.split("/")[1]), len(content[name])))
    half = len(content[damaged]) // 2
    content[damaged] = content[damaged][:half] + bytes([content[damaged][half] ^ 1]) + content[damaged][half + 1 :]
    for name in content:
        files.write_bytes(target / name, content[name])


def work() -> None:
    """The worker's process: reads orders, and forks a process for each."""
    for name in (*IMPORTS, *LATER_IMPORTS, "gcsfs", "google.cloud.storage", "experiments.lib.ends"):
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        with tempfile.NamedTemporaryFile("w+") as log, tempfile.NamedTemporaryFile("w+") as answer:
            pid = os.fork()
            if not pid:
                _be_forked(order, log.fileno(), answer)
            if order.get("after"):
                time.sleep(order["after"])
                os.kill(pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            log.seek(0)
            answer.seek(0)
            text = log.read()
            if "question" in order:
                assert code in (0, -signal.SIGKILL), text
                reply = None if code else json.load(answer)
            else:
                reply = [code, text]
            print(json.dumps(reply), flush=True)


def _be_forked(order: dict[str, Any], log: int, answer: Any) -> None:
    code = 70
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        if order["die"]:
            _die_at(*order["die"])
        if "question" in order:
            json.dump(globals()[order["question"]](*order["words"]), answer)
            answer.flush()
        else:
            sys.argv = order["argv"]
            runpy.run_module(order["argv"][0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _die_at(when: str, part: str, number: int) -> None:
    """Lets this process kill itself at the ``number``-th change of an object whose path has ``part`` in it."""
    from jsubspace.storage.bucket_paths import BucketPath

    left = number

    def deadly(method: Any) -> Any:
        def change(self: Any, *args: Any, **options: Any) -> Any:
            nonlocal left
            left -= part in str(self)
            if left == 0 and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            done = method(self, *args, **options)
            if left == 0 and part in str(self):
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return change

    for name in CHANGES:
        setattr(BucketPath, name, deadly(getattr(BucketPath, name)))


if __name__ == "__main__":
    serve(int(sys.argv[1])) if len(sys.argv) > 1 else work()
