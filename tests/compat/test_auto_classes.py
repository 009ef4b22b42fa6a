"""transformers' Auto classes and pipeline use the models of this package once they are told to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from tiny_models import inputs_for, make_model
from videomae.model.classification import VideoMAEForVideoClassification

# Registration holds for the whole process: it is tried in one of its own.
PROGRAM = """
import copy, sys, torch, transformers, videomae
folder, out = sys.argv[1:]
videomae.register_auto_classes()
videomae.register_auto_classes()
clip = torch.load(out + "/clip.pt")
for auto, name in (("AutoModel", "VideoMAEModel"), ("AutoModelForPreTraining", "VideoMAEForPreTraining"),
                   ("AutoModelForVideoClassification", "VideoMAEForVideoClassification")):
    model = getattr(transformers, auto).from_pretrained(folder, num_frames=8)
    assert type(model) is getattr(videomae, name), type(model)
    assert model.config.position_grid == (2, 4, 4), model.config
    assert type(getattr(transformers, auto).from_config(videomae.VideoMAEConfig(hidden_size=24, num_attention_heads=2,
        num_hidden_layers=1, intermediate_size=8))) is getattr(videomae, name)
cls = transformers.AutoModelForVideoClassification
fresh = cls.from_pretrained(folder, num_labels=3, ignore_mismatched_sizes=True, dtype=torch.bfloat16)
assert (fresh.num_labels, fresh.dtype) == (3, torch.bfloat16)
config = transformers.AutoConfig.from_pretrained(folder)
built = cls.from_config(config)
torch.save(built, out + "/built.pt")
built.save_pretrained(out + "/built")
assert "caller_settings" not in open(out + "/built/config.json").read()
torch.save(cls.from_pretrained(folder)(clip).logits, out + "/logits.pt")
pipeline = transformers.pipeline("video-classification", model=folder)
assert type(pipeline.model) is videomae.VideoMAEForVideoClassification
# A pre-training folder says to look at one corner patch: the repair is not lost on the way.
assert cls.from_pretrained(out + "/pre").config.use_mean_pooling
"""


@pytest.mark.slow
def test_auto_classes_and_pipeline_make_models_of_this_package(tmp_path: Path) -> None:
    from videomae.model.pretraining import VideoMAEForPreTraining

    model = make_model(VideoMAEForVideoClassification).eval()
    model.save_pretrained(tmp_path / "model")
    make_model(VideoMAEForPreTraining).save_pretrained(tmp_path / "pre")
    clip = inputs_for(model)["pixel_values"]
    torch.save(clip, tmp_path / "clip.pt")
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / "model"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), model(clip).logits, atol=1e-6, rtol=0)


def test_a_folder_of_this_package_opens_with_transformers_auto_class(tmp_path: Path) -> None:
    model = make_model(VideoMAEForVideoClassification).eval()
    model.config.my_own = "note"
    model.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path).eval()
    assert type(theirs) is transformers.VideoMAEForVideoClassification
    assert theirs.config.my_own == "note"
    inputs = inputs_for(model)
    torch.testing.assert_close(theirs(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=1e-5)


def test_without_transformers_registration_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from videomae.compat.auto_classes import register_auto_classes
    from videomae.errors import ConfigError

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="register_auto_classes needs transformers: pip install transformers"):
        register_auto_classes()
