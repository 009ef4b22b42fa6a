"""Whatever a user has - a file, a folder, a run, DeepSpeed's, a name on the Hub - leads to the right files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tiny_models import TINY, make_model
from videomae.errors import WeightsError
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.weights.hub import HubOptions, pinned, split_hub_name
from videomae.weights.layouts import to_original, to_transformers
from videomae.weights.saving import save_tensors
from videomae.weights.sources import find_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HEADS = {"num_attention_heads": TINY["num_attention_heads"], "image_size": TINY["image_size"]}


@pytest.fixture
def model() -> VideoMAEForVideoClassification:
    return make_model(VideoMAEForVideoClassification)


def assert_loads(source: str | Path, model: VideoMAEForVideoClassification, **options: object) -> None:
    """Assert that a source gives the tensors of a model."""
    loaded = VideoMAEForVideoClassification.from_pretrained(source, **options)
    state = loaded.state_dict()
    assert all(torch.equal(state[name], one) for name, one in model.state_dict().items())


def save_pickled(model: VideoMAEForVideoClassification, folder: Path, name: str = "pytorch_model.bin") -> None:
    """Write a folder as transformers 4 did: config.json and a pickled state dict."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(to_transformers(model.state_dict()), folder / name)
    model.config.to_json_file(folder / "config.json")


def save_cached(model: VideoMAEForVideoClassification, cache: Path, name: str = "someone/network") -> Path:
    """Write a repository into a cache as huggingface_hub lays it out; return the folder of its commit."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT, encoding="ascii")
    folder = repository / "snapshots" / COMMIT
    model.save_pretrained(folder)
    return folder


def test_one_safetensors_file_takes_the_configuration_beside_it(
    tmp_path: Path, model: VideoMAEForVideoClassification
) -> None:
    model.save_pretrained(tmp_path)
    assert_loads(tmp_path / "model.safetensors", model)
    assert_loads(str(tmp_path / "model.safetensors"), model)


def test_a_pickled_folder_is_read(tmp_path: Path, model: VideoMAEForVideoClassification) -> None:
    save_pickled(model, tmp_path)
    assert_loads(tmp_path, model)
    assert_loads(tmp_path / "pytorch_model.bin", model)


def test_safetensors_are_preferred_and_either_kind_can_be_demanded(
    tmp_path: Path, model: VideoMAEForVideoClassification
) -> None:
    other = make_model(VideoMAEForVideoClassification, hidden_act="relu")
    torch.nn.init.ones_(other.classifier.bias)
    save_pickled(other, tmp_path)
    model.save_pretrained(tmp_path / "safe")
    (tmp_path / "safe" / "model.safetensors").rename(tmp_path / "model.safetensors")
    assert_loads(tmp_path, model)
    assert_loads(tmp_path, model, use_safetensors=True)
    assert_loads(tmp_path, other, use_safetensors=False)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has no model\.safetensors: give the folder"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path, use_safetensors=True)


@pytest.mark.parametrize("pickled", [True, False])
def test_shards_of_both_kinds_are_read(tmp_path: Path, model: VideoMAEForVideoClassification, pickled: bool) -> None:
    state = to_transformers(model.state_dict())
    model.config.to_json_file(tmp_path / "config.json")
    if not pickled:
        save_tensors(state, tmp_path, max_shard_size="20KB")
    else:
        names = sorted(state)
        groups = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
        for file, keys in groups.items():
            torch.save({key: state[key].clone() for key in keys}, tmp_path / file)
        where = {key: file for file, keys in groups.items() for key in keys}
        index = tmp_path / "pytorch_model.bin.index.json"
        index.write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    assert len(list(tmp_path.glob("*-of-*"))) > 1
    assert_loads(tmp_path, model)
    assert_loads(next(tmp_path.glob("*.index.json")), model)
    next(tmp_path.glob("*-00002-of-*")).unlink()
    with pytest.raises(WeightsError, match=r"names shards that are not there: .*-00002-of-"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["checkpoint-799.pth", "weights.pt", "x.bin"])
def test_a_file_of_any_name_stands_alone(tmp_path: Path, model: VideoMAEForVideoClassification, name: str) -> None:
    torch.save({"model": to_original(model.state_dict())}, tmp_path / name)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")  # of another model
    assert_loads(tmp_path / name, model, num_frames=4, **HEADS)
    (tmp_path / "config.json").unlink()
    assert_loads(tmp_path, model, num_frames=4, **HEADS)


def test_several_files_are_not_chosen_from(tmp_path: Path, model: VideoMAEForVideoClassification) -> None:
    for name in ("a.pth", "b.pth"):
        torch.save({"model": to_original(model.state_dict())}, tmp_path / name)
    with pytest.raises(WeightsError, match=r"holds 2 weights files \(a\.pth, b\.pth\): give one of them"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("latest", [True, False])
def test_deepspeeds_folders_are_read_from_inside_and_outside(
    tmp_path: Path, model: VideoMAEForVideoClassification, latest: bool
) -> None:
    older = make_model(VideoMAEForVideoClassification)
    torch.nn.init.ones_(older.classifier.bias)
    for number, one in ((9, older), (10, model)):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        content = {"module": to_original(one.state_dict()), "ds_version": "0.5.8", "optimizer": None}
        torch.save(content, folder / "mp_rank_00_model_states.pt")
    if latest:
        (tmp_path / "latest").write_text("checkpoint-9\n", encoding="ascii")
    assert_loads(tmp_path, older if latest else model, num_frames=4, **HEADS)
    assert_loads(tmp_path / "checkpoint-10", model, num_frames=4, **HEADS)
    _, report = VideoMAEForVideoClassification.from_pretrained(
        tmp_path, num_frames=4, output_loading_info=True, **HEADS
    )
    assert f"taken from checkpoint-{9 if latest else 10} in {tmp_path}" in report.notes


def test_a_network_split_over_ranks_is_refused(tmp_path: Path) -> None:
    for rank in ("00", "01"):
        torch.save({"module": {}}, tmp_path / f"mp_rank_{rank}_model_states.pt")
    with pytest.raises(WeightsError, match="split over several ranks"):
        find_source(tmp_path)


def test_deepspeeds_own_note_leads_nowhere_else(tmp_path: Path, model: VideoMAEForVideoClassification) -> None:
    model.save_pretrained(tmp_path / "secret")
    run = tmp_path / "run"
    run.mkdir()
    (run / "latest").write_text("../secret", encoding="ascii")
    with pytest.raises(WeightsError, match=r"run has no model\.safetensors"):
        find_source(run)


def test_the_newest_checkpoint_is_not_passed_over_because_it_is_damaged(
    tmp_path: Path, model: VideoMAEForVideoClassification
) -> None:
    model.save_pretrained(tmp_path / "checkpoint-1")
    model.save_pretrained(tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-2" / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"checkpoint-2.model\.safetensors cannot be read"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path)


def test_a_finished_run_stands_for_its_model(tmp_path: Path, model: VideoMAEForVideoClassification) -> None:
    model.save_pretrained(tmp_path / "run" / "model")
    assert_loads(tmp_path / "run", model)


def test_a_subfolder_can_be_named(tmp_path: Path, model: VideoMAEForVideoClassification) -> None:
    model.save_pretrained(tmp_path / "deep")
    assert_loads(tmp_path, model, subfolder="deep")


# The Hub, from its cache; no test of this file asks the network.


def test_a_hub_name_is_read_from_the_cache(tmp_path: Path, model: VideoMAEForVideoClassification) -> None:
    save_cached(model, tmp_path)
    assert_loads("someone/network", model, cache_dir=tmp_path, local_files_only=True)
    assert_loads("someone/network", model, cache_dir=str(tmp_path), local_files_only=True, revision=COMMIT)
    with pytest.raises(WeightsError, match=r"the cache holds no weights of someone/other, and asking the Hub is sw"):
        VideoMAEForVideoClassification.from_pretrained("someone/other", cache_dir=tmp_path, local_files_only=True)


def test_shards_on_the_hub_are_read_from_the_cache(tmp_path: Path, model: VideoMAEForVideoClassification) -> None:
    folder = save_cached(model, tmp_path)
    save_tensors(to_transformers(model.state_dict()), folder, max_shard_size="20KB")
    assert not (folder / "model.safetensors").exists()
    assert_loads("someone/network", model, cache_dir=tmp_path, local_files_only=True)


def test_one_file_of_a_repository_is_read_from_the_cache(
    tmp_path: Path, model: VideoMAEForVideoClassification
) -> None:
    folder = save_cached(model, tmp_path, "someone/many")
    (folder / "distill").mkdir()
    torch.save({"module": to_original(model.state_dict())}, folder / "distill" / "small.pth")
    options = {"cache_dir": tmp_path, "local_files_only": True}
    assert_loads("someone/many/distill/small.pth", model, num_frames=4, **HEADS, **options)
    with pytest.raises(WeightsError, match=r"someone/many on the Hub has no distill/other\.pth"):
        VideoMAEForVideoClassification.from_pretrained("someone/many/distill/other.pth", **options)


def test_the_switch_of_huggingface_hub_is_obeyed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="the cache holds no weights of someone/network, and asking the Hub is"):
        VideoMAEForVideoClassification.from_pretrained("someone/network", cache_dir=tmp_path)


def test_a_hub_that_does_not_answer_is_named_as_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between its attempts the client waits 23 seconds in all
    (tmp_path / "models--someone--network" / "snapshots" / COMMIT).mkdir(parents=True)
    (tmp_path / "models--someone--network" / "refs").mkdir()
    (tmp_path / "models--someone--network" / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    config = tmp_path / "models--someone--network" / "snapshots" / COMMIT / "config.json"
    config.write_text("{}", encoding="utf-8")  # an earlier download was cut off after it
    with pytest.raises(WeightsError, match=r"cannot reach the Hub for model\.safetensors of someone/network"):
        VideoMAEForVideoClassification.from_pretrained("someone/network", cache_dir=tmp_path)


def test_all_files_of_a_network_are_of_one_commit(tmp_path: Path) -> None:
    file = tmp_path / "models--a--b" / "snapshots" / COMMIT / "config.json"
    assert pinned(HubOptions(), file).revision == COMMIT
    assert pinned(HubOptions(revision="v1"), tmp_path / "config.json").revision == "v1"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("MCG-NJU/videomae-base", ("MCG-NJU/videomae-base", "")),
        ("a/b/c/d.pth", ("a/b", "c/d.pth")),
        ("videomae-base", None),
        ("./a/b", None),
        ("/a/b", None),
        ("a/b/c", None),
        ("../a/b", None),
        ("a/../b.pth", None),
        ("a/b/../c.pth", None),
        ("a\\b", None),
        ("a//b.pth", None),
        ("http://a/b", None),
        ("", None),
    ],
)
def test_what_may_be_a_name_on_the_hub(text: str, name: tuple[str, str] | None) -> None:
    assert split_hub_name(text) == name


def test_a_path_object_is_never_a_name_on_the_hub() -> None:
    with pytest.raises(WeightsError, match=r"is no folder: give the folder of a saved model or of a finished run"):
        find_source(Path("someone") / "network")
