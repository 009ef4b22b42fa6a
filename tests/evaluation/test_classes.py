"""Class names: matched by name, refused where unknown."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from videomae.data.manifest import Manifest, VideoRow
from videomae.errors import ConfigError, ManifestError
from videomae.evaluation.classes import match_classes, model_targets
from videomae.model.config import VideoMAEConfig


def test_classes_are_matched_by_name_whatever_their_order() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert match_classes(("run", "cut", "jump"), ("cut", "jump", "run")) == (1, 2, 0)


def test_data_may_have_some_of_the_classes_only() -> None:
    assert match_classes(("a", "b", "c", "d"), ("b", "d")) == (1, 3)


def test_case_and_underscores_do_not_matter() -> None:
    assert match_classes(("abseiling", "Riding a Bike"), ("abseiling", "riding_a_bike")) == (0, 1)


def test_exact_names_win_where_folding_would_confuse_them() -> None:
    assert match_classes(("Run", "run"), ("run", "Run")) == (1, 0)
    with pytest.raises(ConfigError, match="RUN"):
        match_classes(("Run", "run"), ("RUN", "run"))


def test_two_folders_are_never_one_class() -> None:
    with pytest.raises(ConfigError, match="riding_a_bike"):
        match_classes(("riding a bike", "x"), ("riding a bike", "riding_a_bike"))


def test_nameless_classifier_is_taken_by_order_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="have no names; its 2 class ids are taken .* from cut to run"):
        assert match_classes(("LABEL_0", "LABEL_1"), ("cut", "run")) == (0, 1)
    with pytest.raises(ConfigError, match="cut, jump, run, which are not among the classifier's 2"):
        match_classes(("LABEL_0", "LABEL_1"), ("cut", "jump", "run"))


def test_unknown_classes_are_named_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"classes swim, which are not among the classifier's 2 \(cut, run\): name"):
        match_classes(("cut", "run"), ("cut", "swim"))


def test_labels_are_the_classifiers_ids() -> None:
    rows = tuple(VideoRow(Path(f"/v/{number}.mp4"), label) for number, label in enumerate((0, 1, 1)))
    manifest = Manifest(Path("/v"), rows, ("cut", "run"))
    targets = model_targets(VideoMAEConfig(id2label={0: "run", 1: "jump", 2: "cut"}), manifest)
    assert targets.names == ("run", "jump", "cut")
    assert targets.values.tolist() == [2, 0, 0]


def test_video_without_label_is_refused() -> None:
    manifest = Manifest(Path("/v"), (VideoRow(Path("/v/0.mp4"), None),), ())
    with pytest.raises(
        ManifestError, match="videos without a label: give each one, in a folder for each class or in"
    ):
        model_targets(VideoMAEConfig(), manifest)


def test_a_model_of_one_output_that_does_not_say_what_it_is_is_refused() -> None:
    manifest = Manifest(Path("/v"), (VideoRow(Path("/v/0.mp4"), 0),), ("LABEL_0", "LABEL_1"))
    with pytest.raises(ConfigError, match=r"1 output\(s\) and problem type None, .*: set problem_type in its config"):
        model_targets(VideoMAEConfig(num_labels=1), manifest)


def test_several_labels_are_the_classifiers_outputs_and_none_is_none_of_them() -> None:
    rows = tuple(VideoRow(Path(f"/v/{number}.mp4"), None, labels) for number, labels in enumerate(((0, 1), (1,), ())))
    config = VideoMAEConfig(id2label={0: "run", 1: "jump", 2: "cut"}, problem_type="multi_label_classification")
    targets = model_targets(config, Manifest(Path("/v"), rows, ("cut", "run")))
    assert targets.values.tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 0]]


def test_values_are_read_from_the_columns_that_the_outputs_are_called() -> None:
    rows = (
        VideoRow(Path("/v/0.mp4"), None, extra=(("angle", "3"), ("speed", "1.5"))),
        VideoRow(Path("/v/1.mp4"), None, extra=(("angle", "-1"), ("speed", "x"))),
    )
    config = VideoMAEConfig(id2label={0: "speed", 1: "angle"}, problem_type="regression")
    assert model_targets(config, Manifest(Path("/v"), rows[:1], ())).values.tolist() == [[1.5, 3.0]]
    with pytest.raises(ManifestError, match=r"1\.mp4 has speed 'x', angle '-1': a value is a number; fill it in"):
        model_targets(config, Manifest(Path("/v"), rows, ()))
    other = VideoMAEConfig(id2label={0: "weight"}, problem_type="regression", num_labels=1)
    with pytest.raises(ManifestError, match=r"no column weight of values \(further columns: angle, speed\): add it"):
        model_targets(other, Manifest(Path("/v"), rows, ()))


def test_a_folder_without_videos_need_not_be_a_class_of_the_model() -> None:
    rows = (VideoRow(Path("/v/0.mp4"), 0), VideoRow(Path("/v/1.mp4"), 2))
    config = VideoMAEConfig(id2label={0: "run", 1: "jump", 2: "cut"})
    for empty in ("jump", "notes"):
        targets = model_targets(config, Manifest(Path("/v"), rows, ("cut", empty, "run")))
        assert targets.values.tolist() == [2, 0]
    with pytest.raises(ConfigError, match="the data has the classes swim, which are not among"):
        model_targets(config, Manifest(Path("/v"), rows, ("cut", "notes", "swim")))


def test_a_nameless_classifier_counts_a_folder_without_videos() -> None:
    rows = (VideoRow(Path("/v/0.mp4"), 0), VideoRow(Path("/v/1.mp4"), 2))
    with pytest.warns(UserWarning, match="have no names"):
        targets = model_targets(VideoMAEConfig(num_labels=3), Manifest(Path("/v"), rows, ("cut", "jump", "run")))
    assert targets.values.tolist() == [0, 2]
