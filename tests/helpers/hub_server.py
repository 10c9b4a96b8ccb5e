"""A stand-in for the Hugging Face Hub on loopback: repositories in memory, over the endpoints that
`huggingface_hub` calls to create a repository and to commit files."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from tests.helpers.static_site import BackgroundServer

TOKEN = "hf_" + "t0ken" * 4
_LARGE = ("*.tar", "*.safetensors", "*.pt", "*.onnx", "*.wasm")
_MOST_REQUESTS = 500


@dataclass
class Repo:
    """A repository: `files` by path; `commits` counts them."""

    private: bool
    sdk: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0

    @property
    def sha(self) -> str:
        return f"{self.commits:040x}"


class HubServer(BackgroundServer):
    """Answers at `url`. `repos` by (kind, name); `objects` are stored large files by sha256, `puts`
    lists those that were sent. `asked` lists (method, path). `readonly` names cannot be written to.

    `on_commit` is called before a commit is done, and may return a status to fail with.
    """

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.readonly: set[str] = set()
        self.on_commit: Callable[[], int | None] = lambda: None
        super().__init__(type("Handler", (_Handler,), {"hub": self}))


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.0"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PUT = do_HEAD = do_GET

    def _handle(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.asked.append((self.command, path))
        parts = path.strip("/").split("/")
        if len(hub.asked) > _MOST_REQUESTS:
            return self._answer(429, {})
        if parts[0] == "objects":
            hub.objects[hashlib.sha256(body).hexdigest()] = body
            hub.puts.append(parts[1])
            return self._answer(200, {})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {}, message="Invalid credentials in Authorization header")
        if parts[0] == "api":
            return self._api(parts[1:], body)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        return self._file(parts)

    def _api(self, parts: list[str], body: bytes) -> None:
        hub = self.hub
        if parts == ["validate-yaml"]:
            head = json.loads(body)["content"].split("---\n")[1]
            return self._answer(200, {"errors": [], "warnings": [], "is": yaml.safe_load(head)})
        if parts == ["repos", "create"]:
            return self._create(json.loads(body))
        kind, name, rest = parts[0][:-1], "/".join(parts[1:3]), parts[3:]
        repo = hub.repos.get((kind, name))
        if repo is None:
            return self._answer(404, {}, code="RepoNotFound")
        if not rest or rest[0] == "revision":
            listed = [{"rfilename": file} for file in sorted(repo.files)]
            return self._answer(
                200, {"id": name, "private": repo.private, "sha": repo.sha, "siblings": listed}
            )
        if rest[0] == "tree":
            return self._answer(200, self._tree(repo, "/".join([*rest[2:], ""])))
        if name in hub.readonly:
            return self._answer(403, {"error": "You don't have the rights"}, message="no rights")
        if rest[0] == "preupload":
            return self._answer(200, {"files": [
                {"path": file["path"], "shouldIgnore": False, "uploadMode":
                 "lfs" if any(fnmatch.fnmatch(file["path"], one) for one in _LARGE) else "regular",
                 "oid": self._entry(repo, file["path"])["oid"] if file["path"] in repo.files
                 else None}
                for file in json.loads(body)["files"]
            ]})  # fmt: skip
        if rest[0] != "commit":
            return self._answer(404, {}, code="EntryNotFound")
        return self._commit(repo, name, body)

    def _tree(self, repo: Repo, folder: str) -> list[dict[str, Any]]:
        """List the files and folders in a folder ("" or with a final slash)."""
        inside = [path for path in sorted(repo.files) if path.startswith(folder)]
        recursive = "recursive=true" in self.path.lower()
        folders = dict.fromkeys(
            folder + path[len(folder) :].partition("/")[0]
            for path in inside
            if "/" in path[len(folder) :]
        )
        return [
            *({"type": "directory", "path": one, "oid": "0" * 40, "size": 0} for one in folders),
            *(self._entry(repo, path) for path in inside
              if recursive or "/" not in path[len(folder) :]),
        ]  # fmt: skip

    @staticmethod
    def _entry(repo: Repo, path: str) -> dict[str, Any]:
        data = repo.files[path]
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        large = any(fnmatch.fnmatch(path, one) for one in _LARGE)
        sha = hashlib.sha256(data).hexdigest()
        lfs = {"lfs": {"oid": sha, "size": len(data), "pointerSize": 100}} if large else {}
        return {
            "type": "file",
            "path": path,
            "size": len(data),
            "oid": sha if large else oid,
            **lfs,
        }

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        key = (wanted.get("type", "model"), name)
        if key in self.hub.repos:
            there = {"error": "You already created this repo", "url": f"{self.hub.url}/{name}"}
            return self._answer(409, there)
        if wanted["organization"] != "ann":
            return self._answer(403, {"error": "no"}, message="You don't have the rights")
        private = wanted.get("visibility") == "private" or wanted.get("private", False)
        self.hub.repos[key] = Repo(private, wanted.get("sdk", ""))
        return self._answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = []
        for one in wanted["objects"]:
            put = {"upload": {"href": f"{self.hub.url}/objects/{one['oid']}"}}
            known = one["oid"] in self.hub.objects
            objects.append({**one} if known else {**one, "actions": put})
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repo: Repo, name: str, body: bytes) -> None:
        if status := self.hub.on_commit():
            return self._answer(status, {"error": "broken"})
        for line in body.splitlines():
            entry = json.loads(line)
            kind, value = entry["key"], entry["value"]
            if kind == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                repo.files[value["path"]] = self.hub.objects[value["oid"]]
            elif kind == "deletedFile":
                del repo.files[value["path"]]
        repo.commits += 1
        url = f"{self.hub.url}/{name}/commit/{repo.sha}"
        return self._answer(200, {"commitUrl": url, "commitOid": repo.sha})

    def _file(self, parts: list[str]) -> None:
        """Send a file: [KINDs/]USER/NAME/resolve/REVISION/PATH."""
        kind = parts.pop(0)[:-1] if parts[0] in ("datasets", "spaces") else "model"
        repo, path = self.hub.repos.get((kind, "/".join(parts[:2]))), "/".join(parts[4:])
        if repo is None or path not in repo.files:
            return self._answer(404, {}, code="EntryNotFound")
        self.send_response(200)
        self.send_header("ETag", f'"{self._entry(repo, path)["oid"]}"')
        self.send_header("X-Repo-Commit", repo.sha)
        self.send_header("Content-Length", str(len(repo.files[path])))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(repo.files[path])
        return None

    def _answer(self, status: int, value: Any, code: str = "", message: str = "") -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if message:
            self.send_header("X-Error-Message", message)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
