"""The processor's file: kept whole, readable across versions of transformers, refused by name where unusable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videomae.errors import ConfigError, WeightsError
from videomae.processing.image_processor import PROCESSOR_FILE, VideoMAEImageProcessor

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
V4_FILE = """{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_normalize": true,
"do_rescale": true, "do_resize": true, "feature_extractor_type": "VideoMAEFeatureExtractor",
"image_mean": [0.485, 0.456, 0.406], "image_processor_type": "VideoMAEFeatureExtractor",
"image_std": [0.229, 0.224, 0.225], "resample": 2, "rescale_factor": 0.00392156862745098,
"size": {"shortest_edge": 224}}"""  # as transformers 4 wrote it, and many fine-tuned folders still hold it
FIRST_FILE = """{"do_center_crop": true, "do_normalize": true, "do_resize": true,
"feature_extractor_type": "VideoMAEFeatureExtractor", "image_mean": [0.485, 0.456, 0.406],
"image_std": [0.229, 0.224, 0.225], "resample": 2, "size": 112}"""  # as transformers 4.22 wrote it


def test_a_saved_processor_loads_to_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "model"
    processor = VideoMAEImageProcessor(size=(20, 30), crop_size=12, resample=3, do_rescale=False, image_mean=0.25)
    processor.save_pretrained(folder)
    assert [path.name for path in folder.iterdir()] == [PROCESSOR_FILE]
    again = VideoMAEImageProcessor.from_pretrained(folder)
    assert again.to_dict() == processor.to_dict()
    assert repr(again) == f"VideoMAEImageProcessor {processor.to_json_string()}"
    changed = VideoMAEImageProcessor.from_pretrained(folder, do_rescale=True, crop_size=10)
    assert (changed.do_rescale, changed.crop_size, changed.resample) == (True, {"height": 10, "width": 10}, 3)


def test_files_of_the_old_feature_extractor_load(tmp_path: Path) -> None:
    (tmp_path / PROCESSOR_FILE).write_text(V4_FILE, encoding="utf-8")
    processor = VideoMAEImageProcessor.from_pretrained(tmp_path)
    assert processor.to_dict() == VideoMAEImageProcessor(**IMAGENET).to_dict()
    processor.save_pretrained(tmp_path)
    written = json.loads((tmp_path / PROCESSOR_FILE).read_text(encoding="utf-8"))
    assert written["image_processor_type"] == "VideoMAEImageProcessor"  # transformers 5 refuses the old name
    assert "feature_extractor_type" not in written


def test_files_of_the_first_feature_extractor_crop_to_their_size(tmp_path: Path) -> None:
    path = tmp_path / PROCESSOR_FILE
    path.write_text(FIRST_FILE, encoding="utf-8")
    processor = VideoMAEImageProcessor.from_pretrained(path)
    assert processor.size == {"shortest_edge": 112}
    assert processor.crop_size == {"height": 112, "width": 112}
    assert processor.do_rescale


def test_unknown_keys_of_a_file_are_kept_and_written_back(tmp_path: Path) -> None:
    values = {**json.loads(V4_FILE), "do_convert_rgb": True, "note": {"by": ["somebody"]}, "processor_class": "X"}
    (tmp_path / PROCESSOR_FILE).write_text(json.dumps(values), encoding="utf-8")
    processor = VideoMAEImageProcessor.from_pretrained(tmp_path)
    assert processor.extra == {"do_convert_rgb": True, "note": {"by": ["somebody"]}}
    processor.save_pretrained(tmp_path / "copy")
    again = VideoMAEImageProcessor.from_pretrained(tmp_path / "copy")
    assert again.extra == processor.extra
    assert again.to_dict()["note"] == {"by": ["somebody"]}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", WeightsError, "is no JSON"),
        ("[1]", WeightsError, "holds no JSON object"),
        (
            '{"image_processor_type": "VivitImageProcessor"}',
            ConfigError,
            "is 'VivitImageProcessor'; this class reads",
        ),
        ('{"feature_extractor_type": "ViTFeatureExtractor"}', ConfigError, "feature_extractor_type is 'ViTFeature"),
        ('{"resample": 1}', ConfigError, r"preprocessor_config\.json: resample is 1; choose"),
        ('{"size": {"shortest_edge": 112}}', ConfigError, "black borders; give crop_size too"),
    ],
)
def test_unusable_files_are_refused_by_name(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    (tmp_path / PROCESSOR_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message) as caught:
        VideoMAEImageProcessor.from_pretrained(tmp_path)
    assert PROCESSOR_FILE in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json is no file: give a model folder with"):
        VideoMAEImageProcessor.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="elsewhere is no file"):
        VideoMAEImageProcessor.from_pretrained(tmp_path / "elsewhere")


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / PROCESSOR_FILE).mkdir()  # a folder where the file should go
    with pytest.raises(WeightsError, match=r"cannot write .*preprocessor_config\.json"):
        VideoMAEImageProcessor().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [PROCESSOR_FILE]
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"cannot write .*file.preprocessor_config\.json"):
        VideoMAEImageProcessor().save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "kept"


def test_a_finished_run_and_a_subfolder_are_looked_into(tmp_path: Path) -> None:
    for folder in ("run/model", "models/second"):
        VideoMAEImageProcessor(size=20, crop_size=12).save_pretrained(tmp_path / folder)
    assert VideoMAEImageProcessor.from_pretrained(tmp_path / "run").crop_size == {"height": 12, "width": 12}
    found = VideoMAEImageProcessor.from_pretrained(tmp_path / "models", subfolder="second", revision="main")
    assert found.crop_size == {"height": 12, "width": 12}
    assert found.extra == {}


def test_the_hub_is_not_asked_for_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    VideoMAEImageProcessor(size=20, crop_size=12).save_pretrained(Path("owner", "name"))
    assert VideoMAEImageProcessor.from_pretrained("owner/name").crop_size == {"height": 12, "width": 12}
    Path("owner", "name", PROCESSOR_FILE).unlink()
    with pytest.raises(WeightsError, match="is no file: give a model folder with"):
        VideoMAEImageProcessor.from_pretrained("owner/name")


def test_an_empty_cache_with_the_hub_switched_off_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"owner/name has no preprocessor_config\.json in the cache, with the Hub"):
        VideoMAEImageProcessor.from_pretrained("owner/name", cache_dir=tmp_path, local_files_only=True)
