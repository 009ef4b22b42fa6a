"""Uploading, through the real client, to a server on this machine that speaks the Hub's routes for commits."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from test_card import RECORD

from tiny_models import make_model
from videomae.errors import WeightsError
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.publishing import publish_folder, write_card
from videomae.sharing.record import load_record, save_record


class Hub(ThreadingHTTPServer):
    """What the tests need of the Hub: repositories are made, files are taken in commits."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.made: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.refuse = False

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers the routes that an upload asks for."""

    server: Hub

    def do_GET(self) -> None:
        self.answer(200, {"id": "ann/x", "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuse:
            self.answer(403, {"error": "You are not\nallowed to do this."})
        elif self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self.answer(200, {"url": f"{self.server.address}/ann/x", "name": "ann/x"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]
            self.answer(200, {"files": modes})
        elif "/commit/" in self.path:
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            oid = hashlib.sha1(body).hexdigest()
            self.answer(200, {"commitUrl": f"{self.server.address}/ann/x/commit/{oid}", "commitOid": oid})
        else:
            self.answer(200, {})

    def answer(self, status: int, values: dict[str, Any]) -> None:
        """Send JSON."""
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run such a server, and point huggingface_hub at it."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_is_uploaded_with_its_card_and_comes_back_equal(hub: Hub, tmp_path: Path) -> None:
    model = make_model(VideoMAEForVideoClassification)
    address = model.push_to_hub("ann/x", record=RECORD, private=True, token="hf_secret", commit_message="First")
    assert address.startswith(f"{hub.address}/ann/x/commit/")
    assert set(hub.files) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "videomae.json",
    }
    assert [one["name"] for one in hub.made] == ["x"]
    assert hub.made[0].get("private") is True or hub.made[0].get("visibility") == "private"
    assert hub.tokens == {"Bearer hf_secret"}
    text = hub.files["README.md"].decode()
    assert "| data fingerprint (SHA-256 of names, sizes and labels) | `9f86d081884c7d65` |" in text
    assert not any(b"/home" in content for name, content in hub.files.items() if name != "model.safetensors")
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    again = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in model.state_dict().items())
    assert load_record(tmp_path).to_dict()["clip"] == RECORD["clip"]


def test_a_finished_run_is_uploaded_and_stays_as_it_is(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "model"
    make_model(VideoMAEForVideoClassification).save_pretrained(folder, max_shard_size="20KB")
    save_record(folder, RECORD)
    (folder / "notes.txt").write_text("private", encoding="utf-8")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    publish_folder(tmp_path / "run", "ann/x", config_class=VideoMAEConfig)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "notes.txt" not in hub.files
    assert "model.safetensors.index.json" in hub.files
    assert "model-00001-of-" in " ".join(hub.files)
    assert json.loads(hub.files["videomae.json"])["training"]["recipe"]["init"] == "pretrain"


def test_a_refusal_is_one_line(hub: Hub) -> None:
    hub.refuse = True
    with pytest.raises(WeightsError, match="cannot upload to ann/x on the Hub: ") as caught:
        make_model(VideoMAEForVideoClassification).push_to_hub("ann/x", token="hf_x")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a/b/c", "", "a/b.pth/c", "https://a/b"])
def test_a_name_that_is_none_is_refused_before_anything_is_written(name: str) -> None:
    with pytest.raises(WeightsError, match="is no name of a repository: give owner/name, or a name alone"):
        make_model(VideoMAEForVideoClassification).push_to_hub(name)


def test_the_card_of_a_folder_is_written_beside_its_weights(tmp_path: Path) -> None:
    model = make_model(VideoMAEForVideoClassification)
    model.save_pretrained(tmp_path)
    write_card(tmp_path, "ann/x", config_class=VideoMAEConfig)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"{model.num_parameters() / 1e6:.1f} million parameters" in text
    assert "## Training" not in text


def test_saving_uploads_under_the_folders_name_for_the_account_that_is_logged_in(hub: Hub, tmp_path: Path) -> None:
    model = make_model(VideoMAEForVideoClassification)
    model.save_pretrained(tmp_path / "runs" / "x", push_to_hub=True, token="hf_secret")
    assert {"config.json", "model.safetensors", "README.md"} <= set(hub.files)
    assert [(one["name"], one.get("organization")) for one in hub.made] == [("x", None)], "runs is no account"
    assert "from_pretrained('ann/x')" in hub.files["README.md"].decode()


def test_saving_uploads_where_it_is_asked_to(hub: Hub, tmp_path: Path) -> None:
    model = make_model(VideoMAEForVideoClassification)
    model.save_pretrained(tmp_path / "y", push_to_hub=True, repo_id="ann/x", token="hf_secret")
    assert [(one["name"], one.get("organization")) for one in hub.made] == [("x", "ann")]
    with pytest.raises(WeightsError, match="'a/b/c' is no name of a repository"):
        model.save_pretrained(tmp_path / "z", push_to_hub=True, repo_id="a/b/c")
    assert not (tmp_path / "z").exists()


def test_a_processor_is_uploaded_by_itself(hub: Hub, tmp_path: Path) -> None:
    processor = VideoMAEImageProcessor(size=112, crop_size=112)
    assert processor.push_to_hub("x", token="hf_secret").startswith(f"{hub.address}/ann/x/commit/")
    assert set(hub.files) == {"preprocessor_config.json"}
    (tmp_path / "preprocessor_config.json").write_bytes(hub.files["preprocessor_config.json"])
    assert VideoMAEImageProcessor.from_pretrained(tmp_path).to_dict() == processor.to_dict()
    with pytest.raises(WeightsError, match="'x/y/z' is no name of a repository: give owner/name"):
        processor.push_to_hub("x/y/z")
