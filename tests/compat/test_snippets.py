"""The usage examples that the published models' cards and transformers' documentation show, run as they stand.

Only the line of the import is another. The files come from a server on loopback through the real Hub client, and
then, with the server not asked, from its cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from loopback_hub import LoopbackHub, serve
from published_files import FIRST_PROCESSOR, LATER_PROCESSOR, published_config, write_repository
from videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification

pytestmark = pytest.mark.slow  # four models of published size, sent over loopback

BASE, LARGE, SSV2 = "MCG-NJU/videomae-base", "MCG-NJU/videomae-large", "MCG-NJU/videomae-base-ssv2"
SMALL = "MCG-NJU/videomae-small-finetuned-kinetics"
KINETICS = "MCG-NJU/videomae-base-finetuned-kinetics"
PRETRAINING = """
from videomae import {processor_class}, VideoMAEForPreTraining
import numpy as np
import torch

num_frames = 16
video = list(np.random.randn(16, 3, 224, 224))

processor = {processor_class}.from_pretrained("{name}")
model = VideoMAEForPreTraining.from_pretrained("{name}")

pixel_values = processor(video, return_tensors="pt").pixel_values

num_patches_per_frame = (model.config.image_size // model.config.patch_size) ** 2
seq_length = (num_frames // model.config.tubelet_size) * num_patches_per_frame
bool_masked_pos = torch.randint(0, 2, (1, seq_length)).bool()

outputs = model(pixel_values, bool_masked_pos=bool_masked_pos)
loss = outputs.loss
"""
CLASSIFICATION = f"""
from videomae import VideoMAEImageProcessor, VideoMAEForVideoClassification
import numpy as np
import torch

video = list(np.random.randn(16, 3, 224, 224))

processor = VideoMAEImageProcessor.from_pretrained("{SMALL}")
model = VideoMAEForVideoClassification.from_pretrained("{SMALL}")

inputs = processor(video, return_tensors="pt")

with torch.no_grad():
    outputs = model(**inputs)
    logits = outputs.logits

predicted_class_idx = logits.argmax(-1).item()
print("Predicted class:", model.config.id2label[predicted_class_idx])
"""
DOCUMENTATION = f"""
import av
import numpy as np
import torch
from videomae import VideoMAEImageProcessor, VideoMAEModel, VideoMAEForVideoClassification, pipeline

container = av.open("clip.mp4")
frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
indices = np.linspace(0, len(frames) - 1, num=16).astype(np.int64)
video = [frames[i] for i in indices]

image_processor = VideoMAEImageProcessor.from_pretrained("{BASE}")
model = VideoMAEModel.from_pretrained("{BASE}")
inputs = image_processor(list(video), return_tensors="pt")
outputs = model(**inputs)
last_hidden_states = outputs.last_hidden_state
list(last_hidden_states.shape)

image_processor = VideoMAEImageProcessor.from_pretrained("{KINETICS}")
model = VideoMAEForVideoClassification.from_pretrained("{KINETICS}")
inputs = image_processor(list(video), return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
    logits = outputs.logits
predicted_label = logits.argmax(-1).item()
print(model.config.id2label[predicted_label])

video_classifier = pipeline("video-classification", model="{KINETICS}")
predictions = video_classifier("clip.mp4", frame_sampling_rate=2)
"""
SNIPPETS = {
    "base": PRETRAINING.format(processor_class="VideoMAEFeatureExtractor", name=BASE),
    "large": PRETRAINING.format(processor_class="VideoMAEImageProcessor", name=LARGE),
    "base-ssv2": PRETRAINING.format(processor_class="VideoMAEFeatureExtractor", name=SSV2),
    "small-finetuned-kinetics": CLASSIFICATION,
    "documentation": DOCUMENTATION,
}
KEPT = "loss bool_masked_pos pixel_values inputs logits predicted_class_idx last_hidden_states predictions".split()
# Runs every snippet in a namespace of its own and keeps what it computed, then the command, then asks for what is not
# there: in one process, since each imports torch.
RUNNER = """
import contextlib, io, json, os, sys, warnings
import numpy as np, torch
from videomae import VideoMAEForPreTraining, VideoMAEImageProcessor, WeightsError
from videomae.cli import main
torch.set_num_threads(1)
snippets, kept = json.load(open("snippets.json")), json.loads(sys.argv[2])
results = {}
for name, code in snippets.items():
    np.random.seed(0)
    torch.manual_seed(0)
    space = {"__name__": "__main__"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile(code, name, "exec"), space)
    found = {key: space[key] for key in kept if key in space}
    found["inputs"] = dict(found.get("inputs") or {})
    results[name] = {**found, "warnings": [str(one.message) for one in caught]}
with contextlib.redirect_stdout(io.StringIO()) as printed:
    status = main(["predict", sys.argv[3], "clip.mp4", "--json"])
results["command"] = {"status": status, "printed": printed.getvalue()}
results["refused"] = []
for one in (VideoMAEImageProcessor, VideoMAEForPreTraining) if os.environ["HF_HUB_OFFLINE"] == "0" else ():
    try:
        one.from_pretrained("MCG-NJU/none")
    except WeightsError as error:
        results["refused"].append(str(error))
torch.save(results, sys.argv[1])
"""


class Runs(NamedTuple):
    """What the snippets computed."""

    hub: LoopbackHub
    online: dict[str, Any]
    offline: dict[str, Any]
    requests: list[str]
    late_requests: list[str]
    seen: str


def environment(folder: Path, hub: LoopbackHub, *, offline: bool) -> dict[str, str]:
    """Return the variables of a process that asks the server on loopback, or its cache alone."""
    settings = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "OMP_NUM_THREADS": "1",
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {**others, **settings}


def run_snippets(folder: Path, hub: LoopbackHub, *, offline: bool) -> tuple[dict[str, Any], str]:
    """Run all snippets in a process of its own; return what they computed and what they printed."""
    result = folder / f"offline-{offline}.pt"
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(result), json.dumps(KEPT), KINETICS],
        cwd=folder,
        env=environment(folder, hub, offline=offline),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return torch.load(result, weights_only=True), done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, video: Path) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("snippets")
    labels = {"id2label": {str(number): f"class {number}" for number in range(400)}}
    labels["label2id"] = {name: int(number) for number, name in labels["id2label"].items()}  # type: ignore[misc]
    classifier, pretraining = "VideoMAEForVideoClassification", "VideoMAEForPreTraining"
    small = {"hidden_size": 384, "num_attention_heads": 16, "num_hidden_layers": 3, "intermediate_size": 1536}
    decoder = {"decoder_hidden_size": 192, "decoder_num_attention_heads": 3, "decoder_intermediate_size": 768}
    root = folder / "hub"
    for number, (name, config, processor, pickled) in enumerate(
        (
            (BASE, published_config(pretraining), FIRST_PROCESSOR, True),
            (LARGE, published_config(pretraining, hidden_size=96, num_attention_heads=16), LATER_PROCESSOR, False),
            (SSV2, published_config(pretraining), FIRST_PROCESSOR, True),
            (SMALL, published_config(classifier, **small, **decoder, **labels), LATER_PROCESSOR, False),
            (KINETICS, published_config(classifier, **labels), FIRST_PROCESSOR, True),
        )
    ):
        write_repository(root / name, config, processor, pickled=pickled, seed=number)
    (folder / "clip.mp4").write_bytes(video.read_bytes())
    (folder / "snippets.json").write_text(json.dumps(SNIPPETS), encoding="utf-8")
    with serve(root) as hub:
        online, seen = run_snippets(folder, hub, offline=False)
        requests = list(hub.requests)
        offline, _ = run_snippets(folder, hub, offline=True)
        yield Runs(hub, online, offline, requests, hub.requests[len(requests) :], seen)


@pytest.mark.parametrize("name", ["base", "large", "base-ssv2"])
def test_pretraining_snippets_compute_what_transformers_computes_from_the_same_files(runs: Runs, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    got = runs.online[name]
    assert got["pixel_values"].shape == (1, 16, 3, 224, 224)
    assert got["bool_masked_pos"].shape == (1, 1568)
    theirs = transformers.VideoMAEForPreTraining.from_pretrained(runs.hub.root / f"MCG-NJU/videomae-{name}").eval()
    with torch.no_grad():
        wanted = theirs(got["pixel_values"], bool_masked_pos=got["bool_masked_pos"]).loss
    assert got["loss"].requires_grad
    assert got["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert wanted.item() > 0.1


def test_the_small_snippet_classifies_with_the_heads_that_were_trained(runs: Runs) -> None:
    transformers = pytest.importorskip("transformers")
    got = runs.online["small-finetuned-kinetics"]
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(
        runs.hub.root / SMALL, num_attention_heads=6
    ).eval()
    with torch.no_grad():
        wanted = theirs(**got["inputs"]).logits
    torch.testing.assert_close(got["logits"], wanted, atol=2e-4, rtol=1e-4)
    assert any("6" in text and "heads" in text for text in got["warnings"])
    assert got["predicted_class_idx"] == wanted.argmax(-1).item()
    assert f"Predicted class: class {wanted.argmax(-1).item()}" in runs.seen


def test_the_documentation_snippet_gives_states_of_every_token_and_named_classes(runs: Runs) -> None:
    got = runs.online["documentation"]
    assert got["last_hidden_states"].shape == (1, 1568, 48)
    assert got["logits"].shape == (1, 400)
    assert [set(one) for one in got["predictions"]] == [{"score", "label"}] * 5
    local = VideoMAEForVideoClassification.from_pretrained(runs.hub.root / KINETICS)
    with torch.no_grad():
        torch.testing.assert_close(got["logits"], local(**got["inputs"]).logits)


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_run_again_from_the_cache_with_the_same_numbers(runs: Runs, name: str) -> None:
    for key in ("loss", "logits", "last_hidden_states"):
        if key in runs.online[name]:
            torch.testing.assert_close(runs.offline[name][key], runs.online[name][key], rtol=0, atol=1e-6)
    assert runs.offline[name].keys() == runs.online[name].keys()


def test_the_hub_was_asked_for_the_files_once_and_never_offline(runs: Runs) -> None:
    downloads = [one for one in runs.requests if one.startswith("GET large/")]
    assert len(downloads) == len(set(downloads)) == 5, "the weights of each repository, once"
    assert any(one.startswith(f"HEAD {BASE}/resolve/main/config.json") for one in runs.requests)
    assert runs.late_requests == []


def test_what_is_not_on_the_hub_is_named(runs: Runs) -> None:
    assert len(runs.online["refused"]) == 2
    assert all("there is no MCG-NJU/none on the Hub, or it is private" in one for one in runs.online["refused"])


@pytest.mark.parametrize("offline", [False, True])
def test_the_command_takes_names_on_the_hub(runs: Runs, offline: bool) -> None:
    done = (runs.offline if offline else runs.online)["command"]
    assert done["status"] == 0
    answer = json.loads(done["printed"])
    assert answer["model"] == KINETICS
    assert len(answer["predictions"][0]["labels"]) == 5


def test_the_generated_files_are_read_whole(runs: Runs) -> None:
    for name in (BASE, LARGE, SSV2):
        _, report = VideoMAEForPreTraining.from_pretrained(runs.hub.root / name, output_loading_info=True)
        assert not report.fresh
