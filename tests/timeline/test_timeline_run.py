"""Runs over several videos: kept scores, stops and kills, addresses, and the page."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from color_models import write_color_video
from videomae.cli import main
from videomae.errors import RunError
from videomae.inference.kept_rows import KeptRows
from videomae.inference.predictor import Predictor
from videomae.report import timeline_page
from videomae.timeline.configs import TimelineConfig
from videomae.timeline.kept import kept_scores
from videomae.timeline.run import STOPPED, run_timelines
from videomae.timeline.timeline import ScoredWindows, Timeline


@pytest.fixture(scope="module")
def predictor(color_folder: Path) -> Predictor:
    return Predictor(color_folder, device="cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two videos."""
    folder = tmp_path_factory.mktemp("videos")
    write_color_video(folder / "a.mp4", [("red", 6.0), ("green", 6.0)])
    write_color_video(folder / "b.mp4", [("blue", 5.0), ("red", 9.0)])
    return folder


def events(path: Path) -> list[dict[str, object]]:
    return json.loads(path.read_text())["videos"]


def test_files_folders_manifests_and_addresses_are_taken_alike(
    color_folder: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text(f"path\n{videos / 'b.mp4'}\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(videos))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/a.mp4"
    out = tmp_path / "events.json"
    try:
        arguments = [str(videos), str(tmp_path / "list.csv"), address, "--out", str(out), "--device", "cpu"]
        assert main(["timeline", str(color_folder), *arguments]) == 0
    finally:
        server.shutdown()
        server.server_close()
    found = events(out)
    assert [one["path"] for one in found] == [
        *map(str, (videos / "a.mp4", videos / "b.mp4", videos / "b.mp4")),
        address,
    ]
    assert found[0]["events"] == found[3]["events"]
    assert found[1]["events"] == found[2]["events"]
    assert "files: " in capsys.readouterr().out
    assert sorted(one.name for one in tmp_path.iterdir()) == ["events.json", "list.csv"]


def test_a_bad_video_among_others_is_reported_and_the_others_are_done(
    color_folder: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nothing that decodes")
    out = tmp_path / "events.csv"
    arguments = [str(tmp_path / "bad.mp4"), str(videos / "a.mp4"), "--out", str(out), "--device", "cpu"]
    assert main(["timeline", str(color_folder), *arguments]) == 2
    printed = capsys.readouterr()
    assert [line for line in printed.err.splitlines() if line.startswith("error: ")] == [
        next(line for line in printed.err.splitlines() if "bad.mp4" in line)
    ]
    assert len(out.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "0"], "step is 0; it is in seconds, above 0, such as --step 2"),
        (["--labels", "pink"], "label 'pink' is none of the model's 3 classes: it has blue, green, red"),
        (["--window", "100"], r"window is 100 seconds and .*a\.mp4 has 12\.00: give a --window of at most 12\.00"),
        (["--annotate", "x.avi"], r"annotate is 'x\.avi'; its name must end with \.mp4"),
    ],
)
def test_bad_settings_are_one_line_with_what_to_give(
    color_folder: Path,
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    out = str(tmp_path / "x.json")
    assert main(["timeline", str(color_folder), str(videos / "a.mp4"), "--out", out, *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("videomae: error: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert not Path(out).exists()


def stopped_after(num_batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C, as Python delivers it, after some batches."""
    append, count = KeptRows.append, iter(range(1, 10_000))

    def counting(kept: KeptRows, video: str, scores: np.ndarray) -> None:
        append(kept, video, scores)
        if next(count) == num_batches:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(KeptRows, "append", counting)


def test_ctrl_c_leaves_complete_results_and_resume_goes_on_to_the_same_bits(
    color_folder: Path,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, whole = tmp_path / "part.json", tmp_path / "whole.json"
    command = ["timeline", str(color_folder), str(videos), "--device", "cpu", "--batch_size", "4", "--out"]
    assert main([*command, str(whole)]) == 0
    with monkeypatch.context() as patch:
        stopped_after(10, patch)
        assert main([*command, str(out)]) == 130
    assert "stopped: what is done has been written; --resume continues" in capsys.readouterr().err
    first, second = events(out)
    assert first == events(whole)[0]
    assert second["fault"] == STOPPED
    assert 0 < len(second["windows"]["start"]) < len(events(whole)[1]["windows"]["start"])  # type: ignore[index]
    computed: list[int] = []
    monkeypatch.setattr(
        ScoredWindows, "__new__", functools.partial(_noted, computed, ScoredWindows.__new__), raising=True
    )
    assert main([*command, str(out), "--resume"]) == 0
    assert out.read_text() == whole.read_text()
    assert sum(computed) < 40, "the first video, or what was done of the second, was computed again"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["part.json", "whole.json"]


def _noted(computed: list[int], make: object, cls: type, first: int, scores: np.ndarray) -> ScoredWindows:
    computed.append(len(scores))
    return make(cls, first, scores)  # type: ignore[operator, no-any-return]


def test_another_model_or_window_cannot_go_on_with_kept_scores(
    predictor: Predictor, tmp_path: Path, videos: Path
) -> None:
    out = tmp_path / "x.json"
    kept = kept_scores(out, predictor, TimelineConfig(), resume=False)
    run_timelines(predictor, [videos / "a.mp4"], kept, config=TimelineConfig())
    kept_scores(out, predictor, TimelineConfig(high=0.7), resume=True)  # thresholds may change
    with pytest.raises(RunError, match=r"was begun with another step \(None, now 0\.5\): .* leave out --resume"):
        kept_scores(out, predictor, TimelineConfig(step=0.5), resume=True)
    faster = Predictor(predictor.source, device="cpu", speed=1.005)
    with pytest.raises(RunError, match=r"was begun with another speed \(1\.0, now 1\.005\)"):
        kept_scores(out, faster, TimelineConfig(), resume=True)
    weights = predictor.model.classifier.weight.detach().clone()
    try:
        predictor.model.classifier.weight.data[0, 0] += 0.5
        with pytest.raises(RunError, match="was begun with another model"):
            kept_scores(out, predictor, TimelineConfig(), resume=True)
    finally:
        predictor.model.classifier.weight.data.copy_(weights)


def test_scores_of_a_file_that_has_changed_are_computed_again(predictor: Predictor, tmp_path: Path) -> None:
    video = write_color_video(tmp_path / "v.mp4", [("red", 3.0)])
    config = TimelineConfig()
    kept = kept_scores(tmp_path / "x.json", predictor, config, resume=False)
    (first,) = run_timelines(predictor, [video], kept, config=config).timelines
    write_color_video(video, [("blue", 3.0)])
    (second,) = run_timelines(predictor, [video], kept, config=config).timelines
    assert [first.events[0].label, second.events[0].label] == ["red", "blue"]


@contextlib.contextmanager
def disk_full_at(num_bytes: int) -> Iterator[None]:
    """Refuse what a file would get beyond a size, as a full disk does: a part of a write may succeed before."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_keeps_complete_results_and_resume_goes_on_to_the_same_bytes(
    color_folder: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole, parts = tmp_path / "part.json", tmp_path / "whole.json", tmp_path / "part.json.parts"
    command = ["timeline", str(color_folder), str(videos), "--device", "cpu", "--batch_size", "4"]
    annotate = ["--annotate", str(tmp_path / "{video}-labels.mp4")]
    assert main([*command, "--out", str(whole)]) == 0
    out.write_text("an earlier result")
    row = 8 * 3
    with disk_full_at(26 * row + 10):  # six batches of four rows, and a part of the next
        assert main([*command, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert re.search(r"part\.json\.parts cannot be written \(File too large\): .* free space and add --resume", error)
    (rows,) = parts.glob("*.f64")
    assert rows.stat().st_size == 24 * row
    with disk_full_at(whole.stat().st_size - 1):
        assert main([*command, "--out", str(out), "--resume"]) == 2
    assert re.search(r"part\.json cannot be written \(.*File too large\): free space or", capsys.readouterr().err)
    assert len(list(parts.glob("*.json"))) == 3, "the settings and two videos that are through"
    with disk_full_at(6000):
        assert main([*command, *annotate, "--out", str(out), "--resume"]) == 2
    assert re.search(r"a-labels\.mp4 cannot be written \(.*\): free space, then add --res", capsys.readouterr().err)
    assert out.read_text() == "an earlier result"
    assert main([*command, "--out", str(out), "--resume"]) == 0
    assert out.read_text() == whole.read_text()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["part.json", "whole.json"]


def test_a_batch_that_fits_in_part_is_left_out_and_the_next_stands_where_it_should(
    predictor: Predictor, tmp_path: Path
) -> None:
    kept = kept_scores(tmp_path / "x.json", predictor, TimelineConfig(batch_size=4), resume=False)
    video = tmp_path / "v.mp4"
    video.write_bytes(b"v")
    kept.begin(str(video))
    with disk_full_at(100):
        kept.append(str(video), np.ones((4, 3)))
        with pytest.raises(RunError, match="File too large"):
            kept.append(str(video), np.full((4, 3), 2.0))
    kept.append(str(video), np.full((4, 3), 3.0))
    assert kept.rows(str(video)).tolist() == [[1.0] * 3] * 4 + [[3.0] * 3] * 4


@pytest.mark.slow
def test_a_killed_process_loses_at_most_a_batch(color_folder: Path, tmp_path: Path) -> None:
    video = write_color_video(tmp_path / "long.mp4", [("red", 60.0), ("green", 60.0)])
    out, whole = tmp_path / "part.json", tmp_path / "whole.json"
    command = ["timeline", str(color_folder), str(video), "--device", "cpu", "--step", "0.1", "--out"]
    assert main([*command, str(whole)]) == 0
    process = subprocess.Popen([sys.executable, "-m", "videomae", *command, str(out)], stderr=subprocess.DEVNULL)
    parts = tmp_path / "part.json.parts"
    deadline = time.monotonic() + 60
    while not any(one.stat().st_size > 6_000 for one in parts.glob("*.f64")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    (rows,) = parts.glob("*.f64")
    done = rows.stat().st_size // 24
    num_windows = len(json.loads(whole.read_text())["videos"][0]["windows"]["start"])
    assert 250 <= done < num_windows
    assert not out.exists()
    predictor = Predictor(color_folder, device="cpu", precision="auto")
    kept = kept_scores(out, predictor, TimelineConfig(step=0.1), resume=True)
    assert kept.begin(str(video)) > done - 8
    assert main([*command, str(out), "--resume"]) == 0
    assert out.read_text() == whole.read_text()
    assert not parts.exists()


def test_the_page_names_the_video_beside_it_and_allows_only_its_own_script(
    color_folder: Path, videos: Path, tmp_path: Path
) -> None:
    import base64
    import hashlib

    out = tmp_path / "page.html"
    assert main(["timeline", str(color_folder), str(videos), "--out", str(out), "--device", "cpu"]) == 0
    html = out.read_text()
    assert [os.path.normpath(tmp_path / found) for found in re.findall(r'<video src="([^"]+)"', html)] == [
        str(videos / "a.mp4"),
        str(videos / "b.mp4"),
    ]
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert html.count("data:image/jpeg;base64,") == 2
    assert html.count("<polyline") == 6
    legends = re.findall(r'<span style="--c: var\((--c[0-9])\)">([a-z]+)</span>', html)
    assert (len(legends), len(set(legends))) == (6, 3), "a class has one color in all videos"
    assert html.count("data-start=") == 4
    assert 'src="http' not in html
    assert re.findall(r'<a href="#(video-[0-9]+)">', html) == re.findall(r'class="panel" id="(video-[0-9]+)"', html)


def test_a_page_of_many_videos_lists_all_and_shows_those_with_the_surest_events(
    predictor: Predictor, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Timeline.from_video(predictor, videos / "a.mp4")
    unsure = [replace(first, events=tuple(replace(event, peak=0.6) for event in first.events))] * 2
    monkeypatch.setattr(timeline_page, "MAX_PANELS", 2)
    timelines = [*unsure, replace(first, events=()), first]
    timeline_page.write_timeline_page(tmp_path / "page.html", timelines)
    html = (tmp_path / "page.html").read_text()
    assert "4 videos, 3 of them with events. Below are the 2 with the surest" in html
    assert html.count(f">{videos / 'a.mp4'}") == 2 + 2 + 2, "listed, two of them with a link, and two shown"
    assert re.findall(r'class="panel" id="(video-[0-9]+)"', html) == ["video-1", "video-4"]


def test_the_page_draws_the_curve_of_a_single_window(predictor: Predictor, tmp_path: Path) -> None:
    video = write_color_video(tmp_path / "short.mp4", [("red", 0.7)])
    timeline = Timeline.from_video(predictor, video)
    assert len(timeline.seconds) == 1
    (red, *_) = timeline_page.panel(timeline_page.Line(1, timeline, True), tmp_path, {}).curves
    height = float(f"{160 * (1 - timeline.curves[0].max()):.1f}")
    assert (red.label, red.points) == ("red", f"0.0,{height} 1000.0,{height}")


@pytest.fixture(autouse=True)
def _sound_interrupts() -> Iterator[None]:
    """A handler that a test leaves behind would end the next one."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)
