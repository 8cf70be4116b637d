"""A stand-in of the Hugging Face Hub's HTTP API, for huggingface_hub as it is: repositories, commits, downloads."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from vpt import attach, save

TOKEN = "hf_standInTokenThatNobodyMaySee"
_LICENSES = ("mit", "cc-by-4.0", "other")  # the real one has more, and refuses others, too
_PULL = "refs/pr/1"
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Hub:
    """What the Hub holds. revisions: commit -> path -> content; branches: name -> commit."""

    url: str = ""
    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)  # large files by SHA-256
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    contested: set[str] = field(default_factory=set)  # made public by somebody else while their cards are validated
    requests: list[str] = field(default_factory=list)

    def create(self, repo: str) -> None:
        first = hashlib.sha1(repo.encode()).hexdigest()
        self.repos[repo], self.branches[repo] = {first: {}}, {"main": first}

    def commit(
        self, repo: str, branch: str, changes: dict[str, bytes], deleted: Collection[str] = (), onto: str | None = None
    ) -> str:
        """Commit to a branch; `onto` names another one that gets the commit, as a pull request does."""
        files = self.repos[repo][self.branches[repo][branch]] | changes
        files = {path: content for path, content in files.items() if path not in deleted}
        name = hashlib.sha1(repr(sorted((k, hashlib.sha1(v).digest()) for k, v in files.items())).encode()).hexdigest()
        self.repos[repo][name], self.branches[repo][onto or branch] = files, name
        return name

    def head(self, repo: str) -> dict[str, bytes]:
        """The files of the branch main."""
        return self.repos[repo][self.branches[repo]["main"]]

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commit = self.branches[repo].get(revision, revision)
        return (commit, self.repos[repo][commit]) if commit in self.repos[repo] else None


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve an empty Hub on a free port; `hub.url` is for HF_ENDPOINT."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, body: Any = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Connection", "close")  # or a client would go on asking a server that has stopped
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    @property
    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        if path == "/stop":  # no more answers
            self.server.shutdown()  # first: a socket that is still waited on takes a connection after it was closed
            self.server.socket.close()
            self._answer(200)
            return
        if path == "/api/whoami-v2":
            self._answer(200 if self._may_write else 401, {"name": "owner", "type": "user"})
            return
        repo = path.removeprefix("/api/models/")
        if repo in self.hub.repos and self._may_write:
            self._answer(200, {"id": repo, "private": repo in self.hub.private})
            return
        asked = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path)
        if asked is not None and asked[1] in self.hub.repos and self._may_write:
            revision = self.hub.files(asked[1], unquote(asked[2]))
            if revision is None:
                self._refuse(404, "RevisionNotFound")
            else:
                self._answer(200, {"id": asked[1], "sha": revision[0]})
            return
        listed = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path)
        if listed is not None and self._may_write:
            _, files = self.hub.files(listed[1], unquote(listed[2])) or ("", {})
            self._answer(200, [{"type": "file", "path": name, "oid": "", "size": len(files[name])} for name in files])
            return
        found = _RESOLVE.fullmatch(path)
        if found is None or found["repo"] not in self.hub.repos:
            # As the real one: without a token, a missing repository looks like a private one.
            self._refuse(404 if self._may_write else 401, "RepoNotFound")
            return
        if found["repo"] in self.hub.gated and not self._may_write:
            self._refuse(403, "GatedRepo")
            return
        revision = self.hub.files(found["repo"], unquote(found["revision"]))
        if revision is None:
            self._refuse(404, "RevisionNotFound")
            return
        commit, files = revision
        content = files.get(unquote(found["file"]))
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        self._answer(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=commit)

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self._body()
        self.hub.requests.append(f"POST {path}")
        if path == "/api/validate-yaml":
            content = json.loads(body)["content"]
            for repo in {repo for repo in self.hub.contested if repo in content} - self.hub.repos.keys():
                self.hub.create(repo)
            license = re.search(r"^license: (.*)$", content, re.MULTILINE)
            known, error = license is None or license[1] in _LICENSES, '"license" must be one of the known'
            if self.headers["Accept"] == "text/plain":
                self._answer(200 if known else 400, b"" if known else f"- Error: {error}".encode())
            else:
                errors = [] if known else [{"message": error}]
                self._answer(200 if known else 400, {"errors": errors, "warnings": []})
        elif not self._may_write:
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            given = json.loads(body)
            repo = f"{given['organization']}/{given['name']}"
            known = repo in self.hub.repos
            if not known:
                self.hub.create(repo)
                if given.get("visibility") == "private" or given.get("private"):
                    self.hub.private.add(repo)
            self._answer(409 if known else 200, {"url": f"{self.hub.url}/{repo}", "id": repo})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", path):
            branches = self.hub.branches[found[1]]
            known = unquote(found[2]) in branches
            branches.setdefault(unquote(found[2]), branches["main"])
            self._answer(409 if known else 200)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", path):
            if found[1] not in self.hub.repos or unquote(found[2]) not in self.hub.branches[found[1]]:
                self._refuse(404, "RevisionNotFound" if found[1] in self.hub.repos else "RepoNotFound")
                return
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            files = [{"path": name, "uploadMode": modes[name], "shouldIgnore": False, "oid": None} for name in names]
            self._answer(200, {"files": files})
        elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**entry, "actions": {"upload": {"href": f"{self.hub.url}/blobs/{entry['oid']}"}}}
                for entry in json.loads(body)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", path):
            changes, deleted = {}, []
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    changes[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
                elif item["key"] == "lfsFile":
                    changes[item["value"]["path"]] = self.hub.blobs[item["value"]["oid"]]
                elif item["key"] == "deletedFile":
                    deleted.append(item["value"]["path"])
            asks = "create_pr=1" in urlsplit(self.path).query
            commit = self.hub.commit(found[1], unquote(found[2]), changes, deleted, _PULL if asks else None)
            answer = {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{found[1]}/commit/{commit}"}
            answer |= {"pullRequestUrl": f"{self.hub.url}/{found[1]}/discussions/1"} if asks else {}
            self._answer(200, answer)
        else:
            self._answer(404, {"error": path})

    def do_PUT(self) -> None:
        path, body = urlsplit(self.path).path, self._body()
        self.hub.requests.append(f"PUT {path}")
        name = path.rpartition("/")[2]
        if hashlib.sha256(body).hexdigest() == name:
            self.hub.blobs[name] = body
            self._answer(200)
        else:
            self._answer(400)


def write_tuned(folder: Path, license: str = "CC-BY-4.0") -> Path:
    """Write a tuned file of two classes, which is to be pushed."""
    model = attach("vit_nano_patch12_48", "linear", 2, classes=["cat", "dog"]).eval()
    scores = {"test_top1": 0.9, "test_mae": 0.25}
    return save(model, folder / "photos.safetensors", scores=scores, license=license)
