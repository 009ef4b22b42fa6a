"""Whole streams: files, pipes, HTTP and RTSP on loopback that are cut, stalled and started again."""

from __future__ import annotations

import ctypes
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchmarks.rtsp_server import RtspServer, color_pipeline, file_pipeline, free_port, rtsp_fault
from live_servers import TsServer, ts_bytes

from color_models import write_color_video
from videomae.cli import main
from videomae.errors import ConfigError, VideoReadError
from videomae.inference.predictor import Predictor
from videomae.live.configs import StreamConfig
from videomae.live.reader import LiveReader
from videomae.live.run import StreamRun, run_stream
from videomae.live.sinks import EventSinks
from videomae.live.source import parse_source
from videomae.timeline.configs import TimelineConfig
from videomae.timeline.timeline import Timeline

FAST = {"rate": 10.0, "smooth": 1, "timeout": 1.5, "max_backoff": 0.5}


class Running:
    """A stream that is classified in a thread, and what it has told so far."""

    def __init__(self, predictor: Predictor, source: str, **settings: float) -> None:
        self.output = io.StringIO()
        self.run: StreamRun | None = None
        self.error: Exception | None = None
        config = StreamConfig(**{**FAST, **settings})  # type: ignore[arg-type]

        def work() -> None:
            try:
                with EventSinks(stream=self.output) as sinks:
                    self.run = run_stream(predictor, source, sinks, config=config)
            except KeyboardInterrupt:
                pass
            except Exception as error:
                self.error = error

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    @property
    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]

    @property
    def told(self) -> list[tuple[object, object]]:
        return [(one["event"], one["label"]) for one in self.events]

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.error is None, self.error
            assert time.monotonic() < deadline, f"{what} did not come; told: {self.told}"
            time.sleep(0.02)

    def join(self, seconds: float = 20.0) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive()

    def interrupt(self) -> None:
        """Press Ctrl-C in its thread: one that still decodes when Python ends would end the process with an abort."""
        number = ctypes.c_ulong(self._thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(KeyboardInterrupt))
        self.join()


def test_a_file_played_as_live_has_the_events_of_its_timeline(color_predictor: Predictor, tmp_path: Path) -> None:
    video = write_color_video(tmp_path / "v.mp4", [("red", 4.0), ("green", 4.0), ("blue", 3.0)])
    timeline = Timeline.from_video(color_predictor, video, config=TimelineConfig(step=0.2, smooth=0.0))
    running = Running(color_predictor, str(video), rate=5.0, playback_speed=2.0)
    running.join()
    assert running.error is None
    ends = {one["label"]: one for one in running.events if one["event"] == "end"}
    starts = {one["label"]: one for one in running.events if one["event"] == "start"}
    assert list(ends) == [one.label for one in timeline.events] == list(starts)
    for event in timeline.events:
        # A decision that is late by 0.2 s on a busy machine is late by 0.4 s of a video played twice as fast.
        assert starts[event.label]["seconds"] == pytest.approx(event.start_seconds, abs=0.85)
        assert ends[event.label]["seconds"] == pytest.approx(event.end_seconds, abs=0.85)
    assert running.run is not None
    assert running.run.stats.frames == 110
    assert running.run.stats.dropped == 0


def test_the_clip_of_a_stream_is_the_one_that_prediction_reads_from_the_file(
    color_predictor: Predictor, tmp_path: Path
) -> None:
    from videomae.inference.clips import clip_batches
    from videomae.video.opening import open_reader

    video = write_color_video(tmp_path / "v.mp4", [("red", 2.0), ("green", 0.5)])
    config = StreamConfig(playback_speed=10.0)
    clip, processor = color_predictor.clip, color_predictor.processor
    with LiveReader(parse_source(str(video)), clip, processor, config, say=lambda _: None) as reader:
        assert reader.wait(10.0)
        newest = reader.ring.newest()
    assert newest is not None
    import numpy as np

    with open_reader(video) as whole:
        (wanted,) = clip_batches(whole.frames, np.array([[18, 20, 22, 24]]), processor, batch_size=1)
    assert newest.frames.equal(wanted)


def test_a_stream_in_a_pipe_survives_another_size_and_another_codec(color_predictor: Predictor) -> None:
    """Three MPEG-TS streams behind each other, as one sender that was started three times."""
    parts = [
        ts_bytes("red", 3.0),
        ts_bytes("green", 3.0, size=64),
        ts_bytes("blue", 12.0, size=48, codec="mpeg2video"),
    ]
    reading, writing = os.pipe()
    said: list[str] = []
    reader = LiveReader(
        parse_source("-"), color_predictor.clip, color_predictor.processor, StreamConfig(), say=said.append
    )
    assert reader._pipe is not None
    reader._pipe._descriptor = reading
    seen: list[str] = []
    with reader:
        for number, part in enumerate(parts):
            for start in range(0, len(part), 4000):
                os.write(writing, part[start : start + 4000])
                time.sleep(0.001)
            if number + 1 == len(parts):
                os.close(writing)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and (reader.stats.frames < 20 * (number + 1)):
                time.sleep(0.02)
            clip = reader.ring.newest()
            if clip is not None:
                seen.append(color_predictor.classes[int(color_predictor.clip_logits(clip.frames).argmax())])
        assert reader.wait(10.0)
        clip = reader.ring.newest()
        assert clip is not None
        seen.append(color_predictor.classes[int(color_predictor.clip_logits(clip.frames).argmax())])
    os.close(reading)
    assert reader.error is None
    assert seen[0] == "red"
    assert seen[-1] == "blue"
    assert "green" in seen
    assert reader.stats.changes >= 2
    assert (reader.stats.width, reader.stats.height) == (48, 48)


@pytest.fixture
def server() -> Iterator[TsServer]:
    found = TsServer()
    yield found
    found.close()


@pytest.mark.slow
def test_a_stream_over_http_survives_cuts_stalls_and_restarts(color_predictor: Predictor, server: TsServer) -> None:
    running = Running(color_predictor, server.address, give_up=8.0)
    running.until(lambda: running.told == [("start", "red")], "red")
    server.color = "green"
    running.until(lambda: ("start", "green") in running.told, "green")
    server.cut()  # the connection ends, the server stays
    server.color, server.size = "blue", 64
    running.until(lambda: ("start", "blue") in running.told, "blue, after a cut and at another size")
    assert server.connections >= 2
    server.is_stalled = True  # nothing comes, the connection stays open
    running.until(lambda: running.told[-1] == ("end", "blue"), "the end of blue in a stall")
    assert running.events[-1]["why"] == "the stream was lost"
    server.is_stalled = False
    server.color = "red"
    running.until(lambda: running.told[-1] == ("start", "red"), "red, after a stall")
    port = server.port
    server.close()  # the server itself is gone
    running.until(lambda: running.told[-1] == ("end", "red"), "the end of red without a server")
    second = TsServer(port)
    second.color, second.codec = "green", "mpeg2video"
    running.until(lambda: running.told[-1] == ("start", "green"), "green, from another server with another codec")
    second.close()
    running.join(30.0)
    assert isinstance(running.error, VideoReadError)
    assert re.search("given up after 8 seconds without a connection", str(running.error))


@pytest.mark.slow
def test_a_stream_over_rtsp_survives_a_killed_and_a_stopped_server(
    color_predictor: Predictor, tmp_path: Path
) -> None:
    if fault := rtsp_fault():
        pytest.skip(fault)
    server = RtspServer(color_pipeline("red"))
    running = Running(color_predictor, server.address)
    try:
        running.until(lambda: running.told == [("start", "red")], "red")
        server.kill()
        running.until(lambda: running.told[-1] == ("end", "red"), "the end of red")
        server = RtspServer(color_pipeline("green", size=96), server.port)
        running.until(lambda: running.told[-1] == ("start", "green"), "green, after a restart at another size")
        server.process.send_signal(signal.SIGSTOP)  # a camera that hangs: connections stay open, nothing comes
        running.until(lambda: running.told[-1] == ("end", "green"), "the end of green in a stall")
        server.process.send_signal(signal.SIGCONT)
        running.until(lambda: running.told[-1] == ("start", "green"), "green, after the stall")
        server.kill()
        video = write_color_video(tmp_path / "v.mp4", [("blue", 20.0)])
        server = RtspServer(file_pipeline(video), server.port)
        running.until(lambda: ("start", "blue") in running.told, "blue, in H.264")
        latencies = [float(str(one["latency"])) for one in running.events if not one["why"]]
        assert max(latencies) < 1.5
    finally:
        running.interrupt()
        server.kill()


def test_frames_are_dropped_and_counted_until_a_reader_that_lags_has_caught_up(
    color_predictor: Predictor, server: TsServer
) -> None:
    """The reader is held up by hand for a second: what came meanwhile is older than allowed."""
    held = threading.Event()

    def hold(_frame: object, seconds: float) -> None:
        if seconds > 1.0 and not held.is_set():
            held.set()
            time.sleep(1.5)

    config = StreamConfig(max_latency=0.3)
    clip, processor = color_predictor.clip, color_predictor.processor
    said: list[str] = []
    with LiveReader(parse_source(server.address), clip, processor, config, say=said.append, on_frame=hold) as reader:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and (not reader.stats.dropped or reader.stats.lag_seconds > 0.3):
            time.sleep(0.02)
        stats = reader.stats
    assert 5 <= stats.dropped <= 25
    assert stats.lag_seconds <= 0.3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("99", r"there is no camera 99 \(/dev/video99\): connect it, or give another number"),
        ("none.mp4", "source 'none.mp4' is no file, no camera number, no address and not -"),
        ("gopher://x", "source 'gopher://x' is of the kind gopher://; use one of http, https"),
        (".", r"source \. is a folder: give a file in it, or use videomae timeline for all"),
    ],
)
def test_a_source_that_is_none_is_refused(source: str, message: str) -> None:
    with pytest.raises((VideoReadError, ConfigError), match=message):
        parse_source(source)


def test_a_password_in_an_address_is_in_no_message() -> None:
    source = parse_source("rtsp://admin:secret@10.0.0.9/live")
    assert source.shown == "rtsp://10.0.0.9/live"


def test_a_stream_that_never_starts_is_one_line_and_status_2(
    color_predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"http://user:secret@127.0.0.1:{free_port()}/live.ts"
    arguments = [color_predictor.source, address, "--connect_timeout", "1", "--device", "cpu"]
    begin = time.monotonic()
    assert main(["stream", *arguments]) == 2
    assert time.monotonic() - begin < 8
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert re.search(
        r"^videomae: error: http://127\.0\.0\.1:\d+/live\.ts cannot be opened: .*; no frame came in 1", line
    )


def test_what_is_no_video_in_a_pipe_is_one_line_and_status_2(
    color_predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_bytes(b"no video\n" * 100)
    with open(tmp_path / "text") as text:
        monkeypatch.setattr(sys, "stdin", text)
        assert main(["stream", color_predictor.source, "-", "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("videomae: error: standard input cannot be opened: ")


def test_a_stream_is_computed_in_the_precision_that_is_asked_for(
    color_predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_color_video(tmp_path / "v.mp4", [("red", 3.0)])
    scores = {}
    for precision in ("fp32", "bf16"):
        options = ["--device", "cpu", "--precision", precision, "--playback_speed", "8", "--rate", "5"]
        assert main(["stream", color_predictor.source, str(video), *options]) == 0
        _, end = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        scores[precision] = end["score"]
    assert 0 < abs(scores["fp32"] - scores["bf16"]) < 0.01, "bfloat16 rounds, and no more than that"


@pytest.mark.slow
def test_ctrl_c_ends_a_stream_with_its_events_complete(color_predictor: Predictor, tmp_path: Path) -> None:
    video = write_color_video(tmp_path / "v.mp4", [("red", 60.0)])
    command = [sys.executable, "-m", "videomae", "stream", color_predictor.source, str(video), "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    start = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    (end,) = [json.loads(line) for line in rest.splitlines()]
    assert (start["event"], end["event"], end["why"]) == ("start", "end", "the stream has ended")


@pytest.mark.parametrize("suffix", [".m3u8", ".mp4"])
def test_what_was_seen_is_recorded_as_a_ring_with_the_labels_in_it(
    color_predictor: Predictor, tmp_path: Path, suffix: str
) -> None:
    import av
    import numpy as np

    video = write_color_video(tmp_path / "v.mp4", [("red", 20.0), ("green", 12.0)])
    target = tmp_path / "ring" / f"out{suffix}"
    target.parent.mkdir()
    with EventSinks(stream=io.StringIO()) as sinks:
        config = StreamConfig(rate=10.0, smooth=1, playback_speed=8.0)
        run_stream(color_predictor, str(video), sinks, config=config, record=target, record_seconds=8.0)
    names = sorted(one.name for one in target.parent.iterdir())
    if suffix == ".m3u8":
        assert target.read_text().startswith("#EXTM3U")
        assert 3 <= len(names) <= 5, names
    else:
        assert names == ["out-000.mp4", "out-001.mp4"]
    first = target if suffix == ".m3u8" else target.parent / "out-001.mp4"
    with av.open(str(first)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert 10 <= len(frames) <= 130, "as many as there was time to encode"
    assert np.median(frames[-1][31, :, 1]) > 0
    assert frames[-1][2:9, :4].mean() < 90, "the time is drawn on dark"


@pytest.mark.parametrize(
    ("name", "seconds", "message"),
    [("x.avi", 60.0, r"record is .*x\.avi'; its name must end with \.m3u8 or \.mp4"), ("x.mp4", 1.0, "at least 8")],
)
def test_a_recording_that_cannot_be_is_refused(
    color_predictor: Predictor, tmp_path: Path, name: str, seconds: float, message: str
) -> None:
    video = write_color_video(tmp_path / "v.mp4", [("red", 1.0)])
    with EventSinks(stream=io.StringIO()) as sinks, pytest.raises(ConfigError, match=message):
        run_stream(
            color_predictor, str(video), sinks, config=StreamConfig(), record=tmp_path / name, record_seconds=seconds
        )
