"""Subspaces on a hub: a server of this machine speaks the few words of the protocol that are used."""

import base64
import http.server
import json
import re
import threading

import numpy as np
import pytest

pytest.importorskip("huggingface_hub")

import jsubspace
from jsubspace.errors import UsageError
from jsubspace.exchange import hub

COMMIT = "a" * 40


class Server(http.server.ThreadingHTTPServer):
    """A hub with repositories in memory: ``{"me/line": {"README.md": bytes}}``."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.private, self.requests = {}, {}, []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub, path = self.server, self.path.partition("?")[0]
        hub.requests.append(f"{self.command} {path}")
        if self.headers.get("Authorization") != "Bearer mine":
            return self.answer({"error": "no access"}, 401)
        if path == "/api/repos/create":
            about = json.loads(body)
            name = f"{about['organization']}/{about['name']}"
            hub.private[name] = about.get("private", about.get("visibility") == "private")
            hub.repositories.setdefault(name, {})
            return self.answer({"url": f"{hub.address}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|revision|tree)/\w+", path):
            return self.of_repository(*found.groups(), body)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/\w+/(.+)", path):
            content = hub.repositories[found[1]].get(found[2])
            if content is not None:
                return self.answer(content, ETag=f'"{len(content)}"')
        return self.answer({"error": "unknown"}, 404)

    def of_repository(self, name, what, body):
        hub = self.server
        if name not in hub.repositories:
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        files = hub.repositories[name]
        if what == "preupload":
            asked = [file["path"] for file in json.loads(body)["files"]]
            return self.answer({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in asked]})
        if what == "commit":
            for row in map(json.loads, body.splitlines()):
                if row["key"] == "file":
                    files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            return self.answer(
                {"commitUrl": f"{hub.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
            )
        if what == "tree":
            sizes = {path: len(content) for path, content in files.items()}
            return self.answer([{"type": "file", "path": p, "size": n, "oid": "b" * 40} for p, n in sizes.items()])
        return self.answer({"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files], "tags": []})

    do_GET = do_POST = do_HEAD = handle_request

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture
def server(monkeypatch, tmp_path):
    found = Server()
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", found.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


@pytest.fixture
def folder(tmp_path):
    jsubspace.save_subspace(tmp_path / "line", {"w": np.float32([[0, 1], [2, 3]])}, jsubspace.Line())
    (tmp_path / "line" / "secret.txt").write_text("not for others")
    return tmp_path / "line"


def test_what_was_pushed_is_pulled(server, folder, tmp_path):
    address = jsubspace.push(folder, "me/line", private=True, token="mine")
    assert address == f"{server.address}/me/line/commit/{COMMIT}"
    assert server.private == {"me/line": True}
    held = server.repositories["me/line"]
    assert sorted(held) == ["README.md", "endpoints.safetensors", "subspace.json"]
    assert all(held[name] == (folder / name).read_bytes() for name in held)
    held["code.py"] = b"import os"
    pulled = jsubspace.pull("me/line", token="mine", to=tmp_path / "pulled")
    assert sorted(path.name for path in pulled.iterdir() if not path.name.startswith(".")) == sorted(
        set(held) - {"code.py"}
    )
    found = jsubspace.load_subspace(pulled)
    assert (found.subspace, found.endpoints["w"].tolist()) == (jsubspace.Line(), [[0, 1], [2, 3]])


def test_what_the_hub_refuses_is_one_line(server, folder, tmp_path):
    server.repositories["me/other"] = {"README.md": b""}
    for refused, message in [
        (lambda: jsubspace.push(folder, "me/line", token="wrong"), "cannot upload .*line to 'me/line': .*401"),
        (lambda: jsubspace.push(tmp_path, "me/line", token="mine"), "holds no subspace"),
        (lambda: jsubspace.push(folder, "a/b/c", token="mine"), "repo_id is 'a/b/c', but it must be a repository"),
        (lambda: jsubspace.pull("me/gone", token="mine", to=tmp_path / "x"), "cannot download 'me/gone': "),
        (lambda: jsubspace.pull("me/other", token="mine", to=tmp_path / "y"), "y holds no subspace"),
    ]:
        with pytest.raises(UsageError, match=message) as raised:
            refused()
        assert "\n" not in str(raised.value)
    assert "me/line" not in server.repositories


def test_without_the_package_one_message_says_so(monkeypatch, folder):
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"push and pull need the package huggingface-hub. Install it"):
        jsubspace.push(folder, "me/line")
