"""Loading: the options of `from_pretrained`, custom classes, checkpoints of other programs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tiny_models import inputs_for, make_model, random_video
from videomae.errors import ConfigError, WeightsError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.positions import sinusoid_table
from videomae.weights.report import LoadReport

SIZES = {"image_size": 16, "num_frames": 4, "num_attention_heads": 2, "decoder_num_attention_heads": 4}
PROJECTION = "videomae.embeddings.patch_embeddings.projection.weight"
pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")


def load(cls: type[VideoMAEPreTrainedModel], source: Path, **options: Any) -> tuple[Any, LoadReport, list[str]]:
    """Load a model; return it with the report and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, report = cls.from_pretrained(source, output_loading_info=True, **options)
    return model, report, [str(one.message) for one in caught]


# Options.


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", "torch.bfloat16", "auto"])
@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_the_dtype_is_as_asked(tmp_path: Path, name: str, dtype: Any) -> None:
    make_model(VideoMAEForPreTraining).to(torch.bfloat16).save_pretrained(tmp_path)
    model, _, _ = load(VideoMAEForPreTraining, tmp_path, **{name: dtype})
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    head, _, _ = load(VideoMAEForVideoClassification, tmp_path, **{name: dtype})
    assert {one.dtype for one in head.parameters()} == {torch.bfloat16}, "fresh parameters too"
    assert VideoMAEForPreTraining.from_pretrained(tmp_path).dtype == torch.float32


def test_positions_stay_in_float32_whatever_the_dtype(tmp_path: Path) -> None:
    make_model(VideoMAEModel).save_pretrained(tmp_path)
    model = VideoMAEModel.from_pretrained(tmp_path, dtype="bfloat16")
    assert torch.equal(model.embeddings.position_embeddings, sinusoid_table(32, 24))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype is 'int8': choose one of float32"),
        ({"dtype": torch.int64}, "dtype is torch.int64: choose one of float32"),
        ({"dtype": "float32", "torch_dtype": "float16"}, "dtype and torch_dtype are one option"),
        (
            {"attn_implementation": "flash_attention_2"},
            "attn_implementation is 'flash_attention_2': choose sdpa or eager",
        ),
        ({"adapt_channels": "median"}, "adapt_channels is 'median': choose mean or repeat"),
        ({"device_map": {"videomae": "cpu", "classifier": "cpu"}}, "device_map names several parts"),
        ({"variant": "fp16"}, "variant is 'fp16', which from_pretrained does not take: name the file itself"),
        ({"load_in_8bit": True}, "load_in_8bit is True, which from_pretrained does not take: quantize the loaded"),
        ({"quantization_config": {"bits": 8}}, "quantization_config is dict, which from_pretrained does not take"),
        ({"state_dict": {}}, "state_dict is dict, which .*: load the model and call load_state_dict"),
        ({"hiden_size": 3}, "unknown config field 'hiden_size': did you mean 'hidden_size'"),
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    make_model(VideoMAEModel).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=message):
        VideoMAEModel.from_pretrained(tmp_path, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"attn_implementation": "sdpa"},
        {"attn_implementation": "eager"},
        {"attn_implementation": None},
        {"low_cpu_mem_usage": True, "trust_remote_code": True},
        {"device_map": "cpu"},
        {"device_map": {"": "cpu"}},
        {"variant": None, "from_tf": False, "from_flax": False, "key_mapping": None, "tp_plan": None},
        {"device_map": "auto", "max_memory": {"cpu": "1GB"}, "offload_folder": "offload"},
        {"finetuning_task": "video-classification", "use_cache": False, "mirror": None, "quantization_config": None},
        {"revision": None, "token": None, "cache_dir": None, "force_download": False, "local_files_only": False},
    ],
    ids=str,
)
def test_transformers_other_options_are_taken(tmp_path: Path, options: dict[str, Any]) -> None:
    source = make_model(VideoMAEModel)
    source.save_pretrained(tmp_path)
    model, _, warned = load(VideoMAEModel, tmp_path, **options)
    assert torch.equal(model.encoder.layer[0].output.dense.weight, source.encoder.layer[0].output.dense.weight)
    assert not warned


def test_without_the_option_the_model_alone_is_returned(tmp_path: Path) -> None:
    make_model(VideoMAEModel).save_pretrained(tmp_path)
    assert isinstance(VideoMAEModel.from_pretrained(tmp_path), VideoMAEModel)
    pair = VideoMAEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(pair, tuple)
    assert isinstance(pair[1], LoadReport)


def test_a_class_made_from_ours_is_loaded_as_ours(tmp_path: Path) -> None:
    class Mine(VideoMAEForVideoClassification):
        """A classifier with a method of its own."""

    make_model(VideoMAEForPreTraining).save_pretrained(tmp_path)
    model, report, _ = load(Mine, tmp_path)
    assert isinstance(model, Mine)
    assert model.config.use_mean_pooling
    assert report.repairs


class TwoHeads(VideoMAEPreTrainedModel):
    """A model of one's own on the encoder."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.videomae = VideoMAEModel(config)
        self.action = nn.Linear(config.hidden_size, 4)
        self.scale = nn.Parameter(torch.ones(1))
        self.post_init()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return scores `[B, 4]`."""
        return self.scale * self.action(self.videomae(pixel_values).last_hidden_state.mean(dim=1))


def test_a_class_of_ones_own_gets_its_heads_fresh_from_a_pretrained_folder_and_keeps_them(tmp_path: Path) -> None:
    make_model(VideoMAEForPreTraining, use_mean_pooling=True).save_pretrained(tmp_path / "pre")
    model, report, warned = load(TwoHeads, tmp_path / "pre")
    assert set(report.fresh) == {"action.weight", "action.bias", "scale"}
    assert any("action.weight" in text and "randomly initialized" in text for text in warned)
    model.save_pretrained(tmp_path / "own")
    again, report, warned = load(TwoHeads, tmp_path / "own")
    assert not report.fresh
    assert not warned
    video = random_video(model.config)
    assert torch.equal(again(video), model.eval()(video))


def test_half_a_head_is_no_fresh_head(tmp_path: Path) -> None:
    model = TwoHeads(make_model(VideoMAEModel).config)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["action.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"it lacks action\.bias$"):
        TwoHeads.from_pretrained(tmp_path)


@pytest.mark.parametrize("container", ["model_state_dict", "net", "network", "state_dict"])
@pytest.mark.parametrize("wrapper", ["", "module.", "model.", "net.", "network.module."])
def test_checkpoints_of_peoples_own_loops_are_read(tmp_path: Path, container: str, wrapper: str) -> None:
    model = make_model(VideoMAEForVideoClassification).eval()
    tensors = {wrapper + name: tensor for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters()).state_dict()
    torch.save({"epoch": 3, container: tensors, "optimizer_state_dict": optimizer}, tmp_path / "best.ckpt")
    again, _, warned = load(VideoMAEForVideoClassification, tmp_path / "best.ckpt", config=model.config)
    assert not warned
    inputs = inputs_for(model)
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_what_is_in_the_way_is_named_with_how_to_leave_it_out(tmp_path: Path) -> None:
    model = make_model(VideoMAEForVideoClassification)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": {**tensors, "criterion.weight": torch.ones(5)}}, tmp_path / "best.ckpt")
    with pytest.raises(WeightsError, match=r"it also has criterion\.weight; give strict=False"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path / "best.ckpt", config=model.config)


def test_a_folder_of_an_adapter_is_told_from_a_model(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = make_model(VideoMAEForVideoClassification)
    peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query", "value"])).save_pretrained(tmp_path)
    with pytest.raises(
        WeightsError, match="holds a PEFT adapter, not a model: load the model that it was trained on"
    ):
        VideoMAEForVideoClassification.from_pretrained(tmp_path)
