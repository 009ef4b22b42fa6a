"""A stream classified while it comes: the newest clip at a fixed rate, events told as they begin and end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from videomae.errors import ConfigError
from videomae.inference.predictor import Predictor
from videomae.inference.scores import scores_of
from videomae.live.configs import StreamConfig
from videomae.live.decisions import DecisionMaker
from videomae.live.reader import LiveReader, StreamStats
from videomae.live.record import StreamRecorder
from videomae.live.ring import LiveClip
from videomae.live.screen import StreamScreen, status_line
from videomae.live.sinks import EventSinks
from videomae.live.source import parse_source
from videomae.timeline.events import chosen_labels
from videomae.timeline.timeline import check_has_scores

WAIT_SECONDS = 0.02  # least time between two looks at the stream


@dataclass
class StreamRun:
    """What a stream has given."""

    decisions: int = 0
    """Clips that were classified."""
    skipped: int = 0
    """Decisions that were due while the model was busy."""
    events: int = 0
    """Events that were told, starts and ends."""
    suppressed: int = 0
    """Events in a cool-down, or too short."""
    worst_latency: float = 0.0
    """The longest time from the arrival of a frame to the decision that took it, seconds."""
    stats: StreamStats = StreamStats()  # noqa: RUF009 - frozen
    """What has come."""

    def summary(self, latency: float = 0.0) -> str:
        """Return it in one line."""
        return status_line(self.stats, latency or self.worst_latency, self.decisions, self.skipped)


def run_stream(
    predictor: Predictor,
    source: str,
    sinks: EventSinks,
    *,
    config: StreamConfig,
    labels: Sequence[str] | None = None,
    show: bool = False,
    record: Path | None = None,
    record_seconds: float = 60.0,
) -> StreamRun:
    """Classify a stream until it ends, or Ctrl-C.

    Args:
        predictor: The classifier.
        source: Camera number, rtsp:// or http(s):// address, `-` for standard input, or a file.
        sinks: Where events go.
        config: Rate, thresholds, time limits.
        labels: Names of the classes to look for; all where not given.
        show: Draw in the terminal.
        record: `.m3u8` or `.mp4` to write what was seen to; None: nothing.
        record_seconds: How much of it is kept.

    Returns:
        What it gave.

    Raises:
        VideoReadError: If no frame ever comes, or the connection is lost for longer than allowed.
        ConfigError: If the source is none, a label is unknown, or the model is a regression.
        RunError: If events cannot be written.
    """
    check_has_scores(predictor)
    if not predictor.is_calibrated:
        raise ConfigError(
            "precision is 'int8' and the backend 'openvino', which needs to know the range of values beforehand, and "
            "of a stream nothing is known: use bf16, or first call inference.calibration.calibrate"
        )
    wanted = chosen_labels(labels, predictor.classes)
    origin = parse_source(source)
    run = StreamRun()
    own = list(predictor.thresholds) if predictor.activation == "sigmoid" else None
    maker = DecisionMaker(wanted, config, thresholds=own, start_time=time.time())
    with ExitStack() as stack:
        screen = stack.enter_context(StreamScreen(origin.shown, is_shown=show))
        recorder = None
        if record is not None:
            recorder = stack.enter_context(
                StreamRecorder(record, ring_seconds=record_seconds, scores=maker.on, say=screen.say)
            )
        reader = LiveReader(
            origin,
            predictor.clip,
            predictor.processor,
            config,
            say=screen.say,
            on_frame=None if recorder is None else recorder.offer,
        )
        stack.enter_context(reader)
        try:
            _decide(predictor, reader, maker, sinks, screen, config, run)
        finally:
            run.stats, run.suppressed = reader.stats, maker.suppressed
        if reader.error is not None:
            raise reader.error
    return run


def _decide(
    predictor: Predictor,
    reader: LiveReader,
    maker: DecisionMaker,
    sinks: EventSinks,
    screen: StreamScreen,
    config: StreamConfig,
    run: StreamRun,
) -> None:
    """Decide at the rate until no frame comes any more."""
    period = 1.0 / config.rate / (config.playback_speed if reader.source.kind == "file" else 1.0)
    due = time.monotonic()
    last: LiveClip | None = None
    is_lost = False
    try:
        while True:
            is_over = reader.wait(max(due - time.monotonic(), WAIT_SECONDS if last is None else 0.0))
            clip = reader.ring.newest()
            now = time.monotonic()
            if clip is not None and (last is None or clip.number != last.number):
                logits = predictor.clip_logits(clip.frames)
                scores = scores_of(logits, predictor.activation)[0].numpy()
                latency = time.monotonic() - clip.arrived
                run.worst_latency = max(run.worst_latency, latency)
                run.decisions += 1
                last, is_lost = clip, False  # before anything is told, so that a stop ends what was
                for event in maker.decide(scores, seconds=clip.centre_seconds, latency=latency):
                    run.events += 1
                    sinks.tell(event)
                shown = {name: float(scores[number]) for number, name in enumerate(predictor.classes)}
                screen.update(
                    shown,
                    set(maker.on()),
                    reader.stats,
                    latency=latency,
                    decisions=run.decisions,
                    skipped=run.skipped,
                )
            elif last is not None and not is_lost and now - last.arrived > config.timeout:
                is_lost = True
                _tell_end(maker, sinks, run, last, "the stream was lost")
            if is_over:
                return
            due, now = due + period, time.monotonic()
            if due < now:  # the model is slower than the rate
                missed = int((now - due) / period) if last is not None else 0
                run.skipped += missed
                due = max(due + missed * period, now - period)
    finally:
        if last is not None:
            _tell_end(maker, sinks, run, last, "the stream has ended")


def _tell_end(maker: DecisionMaker, sinks: EventSinks, run: StreamRun, last: LiveClip, why: str) -> None:
    for event in maker.finish(last.end_seconds, why):
        run.events += 1
        sinks.tell(event)
