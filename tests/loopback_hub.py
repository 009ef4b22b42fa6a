"""A Hub on loopback: the routes by which huggingface_hub finds and downloads files, over folders on disk."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGE_BYTES = 1 << 16  # larger files are redirected to another address, as the Hub does with weights


@dataclass
class LoopbackHub:
    """A running server."""

    root: Path
    """Holds `owner/name/` for each repository."""
    endpoint: str = ""
    """Its address, for HF_ENDPOINT."""
    requests: list[str] = field(default_factory=list)
    """Method and path of every request."""

    def commit(self, repository: str) -> str:
        """Return the one commit of a repository, 40 hexadecimal digits."""
        return hashlib.sha1(repository.encode()).hexdigest()


def _respond(handler: BaseHTTPRequestHandler, hub: LoopbackHub) -> None:
    path = handler.path.partition("?")[0].strip("/")
    hub.requests.append(f"{handler.command} {path}")
    parts = path.split("/")
    if parts[:2] == ["api", "models"] and len(parts) >= 4 and (hub.root / parts[2] / parts[3]).is_dir():
        repository = "/".join(parts[2:4])
        files = sorted(one.name for one in (hub.root / repository).iterdir())
        facts = {
            "id": repository,
            "modelId": repository,
            "sha": hub.commit(repository),
            "private": False,
            "siblings": [{"rfilename": name} for name in files],
        }
        _send(handler, 200, json.dumps(facts).encode(), {"Content-Type": "application/json"})
    elif parts[0] == "large":
        _send(handler, 200, (hub.root / "/".join(parts[1:])).read_bytes(), {"ETag": '"of the storage"'})
    elif len(parts) >= 5 and parts[2] == "resolve":
        _resolve(handler, hub, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
    else:
        _send(handler, 404, b"", {})


def _resolve(handler: BaseHTTPRequestHandler, hub: LoopbackHub, repository: str, revision: str, name: str) -> None:
    commit = hub.commit(repository)
    if not (hub.root / repository).is_dir():
        _send(handler, 404, b"", {"X-Error-Code": "RepoNotFound"})
        return
    if revision not in ("main", commit):
        _send(handler, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        return
    file = hub.root / repository / name
    if not file.is_file():
        _send(handler, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        return
    content = file.read_bytes()
    headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "none"}
    if len(content) < LARGE_BYTES:
        _send(handler, 200, content, headers)
        return
    headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(content))}
    # The client asks the Hub itself for the facts of a file, and only the download goes to another host.
    storage = hub.endpoint.replace("127.0.0.1", "localhost")
    _send(handler, 302, b"", {**headers, "Location": f"{storage}/large/{repository}/{name}"})


def _send(handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(content))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)


@contextmanager
def serve(root: Path) -> Iterator[LoopbackHub]:
    """Serve the repositories in a folder until the block is left."""
    hub = LoopbackHub(root)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _respond(self, hub)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing: the requests are kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
