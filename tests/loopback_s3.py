"""A real S3-speaking server on this machine, and in front of it a proxy that makes faults when a test asks."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest

Fault = Literal["503", "cut", "slow", "silent"]
SILENT_SECONDS = 3.0
BUCKET = "videos"


@dataclass
class Proxy:
    """What passed through, and what is to go wrong."""

    address: str = ""
    endpoint: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and range of each request."""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    """By end of a path: what becomes of the next GET and HEAD requests for it, one after another."""
    always: dict[str, Fault] = field(default_factory=dict)
    """By end of a path: what becomes of each request for it."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for end, fault in self.always.items():
                if path.endswith(end):
                    return fault
            for end, waiting in self.faults.items():
                if path.endswith(end) and waiting and (method == "GET" or waiting[0] == "503"):
                    return waiting.pop(0)
        return None

    def count(self, method: str, end: str) -> int:
        return sum(one[0] == method and one[1].endswith(end) for one in self.requests)


@dataclass
class Bucket:
    """A bucket behind the proxy."""

    proxy: Proxy
    client: object

    def put(self, key: str, content: bytes) -> str:
        """Upload a file, past the proxy; returns its address."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)  # type: ignore[attr-defined]
        return f"s3://{BUCKET}/{key}"

    def empty(self) -> None:
        for one in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", []):  # type: ignore[attr-defined]
            self.client.delete_object(Bucket=BUCKET, Key=one["Key"])  # type: ignore[attr-defined]

    def put_folder(self, folder: Path, prefix: str) -> str:
        """Upload the files of a folder; returns its address."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{BUCKET}/{prefix}"


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _pass(self) -> None:
        path = urlsplit(self.path).path
        with self.proxy.lock:
            self.proxy.requests.append((self.command, path, self.headers.get("Range", "")))
        fault = self.proxy.fault(self.command, path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault == "503":
            content = b"<Error><Code>ServiceUnavailable</Code><Message>Come back later</Message></Error>"
            self.send_response(503)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            return
        if fault == "silent":
            time.sleep(SILENT_SECONDS)
            self.close_connection = True
            return
        to = urlsplit(self.proxy.endpoint)
        connection = http.client.HTTPConnection(to.hostname or "", to.port, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "cut":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif fault == "slow":
            for start in range(0, len(content), 1 + len(content) // 10):
                time.sleep(0.03)
                self.wfile.write(content[start : start + 1 + len(content) // 10])
        else:
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass


@contextmanager
def serve_s3() -> Iterator[Bucket]:
    """Start the server and the proxy; the environment must be set by `use_bucket`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxy = Proxy(endpoint=f"http://{host}:{port}")
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as front:
        front.daemon_threads = True
        proxy.address = f"http://127.0.0.1:{front.server_port}"
        threading.Thread(target=front.serve_forever, daemon=True).start()
        client = boto3.client(
            "s3",
            endpoint_url=proxy.endpoint,
            region_name="us-east-1",
            aws_access_key_id="tests",
            aws_secret_access_key="tests",
        )
        client.create_bucket(Bucket=BUCKET)
        yield Bucket(proxy, client)
        front.shutdown()
    server.stop()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Bucket]:
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'videomae[remote]'")
    with serve_s3() as bucket:
        yield bucket


@pytest.fixture
def bucket(s3_server: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The bucket, as this process and those it starts reach it, with an empty cache and short pauses."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server.proxy.address,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "VIDEOMAE_CACHE": str(tmp_path / "cache"),
        "XDG_CACHE_HOME": str(tmp_path / "caches"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("videomae.video.remote.PAUSE_SECONDS", 0.02)
    s3_server.empty()
    proxy = s3_server.proxy
    proxy.requests.clear()
    proxy.faults.clear()
    proxy.always.clear()
    return s3_server
