import io
import os
import subprocess
import sys

import pytest

from videomae.engine.progress import MeanSpeed, StepWork, TrainingProgress


class Clock:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def run(progress, clock, steps, *, seconds_per_step, loss=None):
    for step in steps:
        clock.now += seconds_per_step
        progress.update(step, num_clips=8, loss=loss, learning_rate=1.5e-3)


def test_without_a_terminal_lines_are_rare_and_the_last_step_is_always_told():
    clock, stream = Clock(), io.StringIO()
    with TrainingProgress("pre-training", total_steps=100, stream=stream, line_seconds=30.0, clock=clock) as progress:
        run(progress, clock, range(1, 101), seconds_per_step=1.0, loss=0.5)
    lines = stream.getvalue().splitlines()
    assert [line.split("step ")[1].split("/")[0] for line in lines] == ["1", "31", "61", "91", "100"]
    assert "\x1b" not in stream.getvalue()
    assert lines[1] == (
        "pre-training  step 31/100 (31%)  0:00:31 elapsed  0:01:09 left  loss 0.5  lr 1.50e-03  8 clips/s"
    )
    assert lines[-1] == "pre-training  step 100/100 (100%)  0:01:40 elapsed  loss 0.5  lr 1.50e-03  8 clips/s"


def test_last_line_is_not_repeated():
    clock, stream = Clock(), io.StringIO()
    with TrainingProgress("demo", total_steps=1, stream=stream, clock=clock) as progress:
        run(progress, clock, [1], seconds_per_step=1.0)
    assert len(stream.getvalue().splitlines()) == 1


def test_failing_loop_still_tells_where_it_was():
    clock, stream = Clock(), io.StringIO()

    def fail_after_three_steps():
        with TrainingProgress("demo", total_steps=9, stream=stream, clock=clock) as progress:
            run(progress, clock, [1, 2, 3], seconds_per_step=1.0)
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_three_steps()
    assert "step 3/9" in stream.getvalue().splitlines()[-1]


def test_speed_and_time_left_of_a_resumed_run_count_from_the_resume():
    clock = Clock()
    progress = TrainingProgress("x", total_steps=1000, start_step=900, stream=io.StringIO(), clock=clock)
    assert progress.speed() is None
    assert progress.status() == "step 900/1000 (90%)  0:00:00 elapsed"
    run(progress, clock, range(901, 911), seconds_per_step=0.5)
    assert progress.speed().steps_per_second == pytest.approx(2.0)
    assert progress.speed().clips_per_second == pytest.approx(16.0)
    assert "0:00:05 elapsed  0:00:45 left" in progress.status()


def test_no_time_left_is_told_from_the_first_step_alone_which_starts_the_processes_too():
    clock = Clock()
    progress = TrainingProgress("x", total_steps=365, stream=io.StringIO(), clock=clock)
    run(progress, clock, [1], seconds_per_step=16.0)
    assert progress.status().startswith("step 1/365 (0%)  0:00:16 elapsed  lr")
    run(progress, clock, [2], seconds_per_step=0.5)
    assert " left  " in progress.status()


def test_speed_follows_a_change_within_a_minute_or_two():
    clock = Clock()
    progress = TrainingProgress("x", total_steps=10_000, stream=io.StringIO(), clock=clock)
    run(progress, clock, range(1, 101), seconds_per_step=10.0)
    assert progress.speed().clips_per_second == pytest.approx(0.8)
    run(progress, clock, range(101, 801), seconds_per_step=0.1)
    assert progress.speed().clips_per_second == pytest.approx(80.0)


def test_steps_longer_than_the_window_have_a_speed():
    clock = Clock()
    progress = TrainingProgress("x", total_steps=10, stream=io.StringIO(), clock=clock)
    run(progress, clock, range(1, 4), seconds_per_step=200.0)
    assert progress.speed().clips_per_second == pytest.approx(0.04)
    assert "0.04 clips/s" in progress.status()


def test_fast_speeds_are_whole_numbers():
    clock = Clock()
    progress = TrainingProgress("x", total_steps=10, stream=io.StringIO(), clock=clock)
    run(progress, clock, range(1, 4), seconds_per_step=8 / 1978)
    assert "1978 clips/s" in progress.status()


def test_operations_are_shown_with_their_fraction_of_the_peak_where_it_was_measured():
    for work, text in (
        (StepWork(flops=3e12, peak=2e13), "8 clips/s  3 TFLOP/s, 15% of peak"),
        (StepWork(flops=3.04e10), "8 clips/s  30.4 GFLOP/s"),
    ):
        clock, stream = Clock(), io.StringIO()
        with TrainingProgress("x", total_steps=9, work=work, stream=stream, clock=clock) as progress:
            run(progress, clock, range(1, 4), seconds_per_step=1.0)
        assert stream.getvalue().splitlines()[-1].endswith(text)


def test_speed_is_noted_once_a_minute_from_the_first_minute_on():
    clock = Clock()
    work = StepWork(flops=2e12, peak=8e12)
    progress = TrainingProgress("x", total_steps=1000, work=work, stream=io.StringIO(), clock=clock)
    noted = {}
    for step in range(1, 131):
        run(progress, clock, [step], seconds_per_step=1.0)
        if now := progress.noted():
            noted[step] = now
    assert list(noted) == [60, 120]
    assert noted[120] == {"clips_per_second": 8.0, "flops_per_second": 2e12, "peak_fraction": 0.25}


def test_the_mean_speed_leaves_out_the_first_step():
    clock = Clock()
    speed = MeanSpeed(clock=clock)
    assert speed.clips_per_second is None
    for seconds in (100.0, 1.0, 3.0):
        clock.now += seconds
        speed.add(8)
        assert (speed.clips_per_second is None) == (seconds == 100.0)
    assert speed.clips_per_second == 4.0


def test_loss_is_smoothed_and_steps_without_one_keep_the_last():
    clock = Clock()
    progress = TrainingProgress("x", total_steps=10, stream=io.StringIO(), clock=clock)
    progress.update(1, num_clips=1, loss=1.0)
    assert progress.loss == 1.0
    progress.update(2, num_clips=1, loss=2.0)
    assert progress.loss == pytest.approx(0.9 * 1.0 + 0.1 * 2.0)
    progress.update(3, num_clips=1)
    assert "loss 1.1" in progress.status()


def test_messages_get_their_own_line():
    stream = io.StringIO()
    with TrainingProgress("demo", total_steps=3, stream=stream) as progress:
        progress.say("warning: [bold]a.mp4[/bold] is left out")
    assert stream.getvalue().splitlines()[0] == "warning: [bold]a.mp4[/bold] is left out"


def test_closed_stream_does_not_stop_a_run():
    clock, stream = Clock(), io.StringIO()
    with TrainingProgress("demo", total_steps=100, stream=stream, clock=clock) as progress:
        stream.close()
        run(progress, clock, range(1, 101), seconds_per_step=100.0)
        progress.say("still here")
    assert progress.step == 100


def test_process_without_standard_error_trains_on(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with TrainingProgress("demo", total_steps=2) as progress:
        progress.update(1, num_clips=1)
    assert progress.step == 1


SCRIPT = """
import sys
from videomae.engine.progress import TrainingProgress

with TrainingProgress("demo", total_steps=200) as progress:
    for step in range(1, 201):
        progress.update(step, num_clips=4, loss=0.25, learning_rate=1e-3)
        if step == 100:
            progress.say("warning: a.mp4 is left out")
            print("RESULT")
"""


def plain_environment():
    """The environment without what makes rich take a pipe for a terminal or the reverse."""
    forcing = {"FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES", "TERM"}
    return {name: value for name, value in os.environ.items() if name not in forcing}


def test_results_alone_go_to_standard_output():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, env=plain_environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "RESULT\n"
    lines = done.stderr.splitlines()
    assert len(lines) == 3  # the first step, the warning, the end
    assert lines[0].startswith("demo  step 1/200 (0%)")
    assert lines[1] == "warning: a.mp4 is left out"
    assert lines[2].startswith("demo  step 200/200 (100%)")


def test_reader_that_goes_away_does_not_stop_a_run():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=writer, timeout=120, env=plain_environment()
    )
    os.close(writer)
    assert done.stdout.split() == [b"RESULT"]
    assert done.returncode in (0, 120)  # 120: Python itself could not flush standard error at exit


@pytest.mark.parametrize("columns", [80, 160])
def test_terminal_gets_a_live_bar_with_every_number(columns):
    if os.name != "posix":
        pytest.skip("needs a POSIX pseudo-terminal")
    import fcntl
    import pty
    import struct
    import termios

    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**plain_environment(), "TERM": "xterm-256color"},
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    results, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert results == b"RESULT\n"
    text = shown.decode()
    last = text[text.rindex("demo") :]
    for part in ("step 200/200 (100%)", " elapsed", "loss 0.25", "lr 1.00e-03", " clips/s"):
        assert part in last
    assert "warning: a.mp4 is left out" in text
    assert "\x1b[" in text
    assert ("\u2501" in last) == (columns == 160)  # narrow terminals have no room for the bar
