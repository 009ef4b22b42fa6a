import os
import signal
import subprocess
import sys
import threading

import pytest

from videomae.engine.interrupt import graceful_interrupt

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sends signals the Linux way")

# The loop ticks on standard output; the test sends signals when it sees ticks. It begins with the handler of an
# interactive Python, whatever this test run's own parent made of SIGINT.
LOOP = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from videomae.engine.interrupt import graceful_interrupt

stubborn = sys.argv[1] == "stubborn"
with graceful_interrupt() as interrupt:
    step = 0
    try:
        while stubborn or not interrupt.requested:
            step += 1
            print("requested" if interrupt.requested else "running", flush=True)
        print(f"saved after {interrupt.signal.name}", flush=True)
    except KeyboardInterrupt:
        print("stopped at once", flush=True)
restored = signal.getsignal(signal.SIGINT) is signal.default_int_handler
print("restored", restored and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, flush=True)
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_until(process, word):
    for line in process.stdout:
        if line.strip() == word:
            return
    raise AssertionError(f"{word!r} was never printed: {process.stderr.read()}")


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_lets_the_loop_finish_and_save(number):
    process = start(LOOP, "polite")
    read_until(process, "running")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.splitlines()[-2:] == [f"saved after {number.name}", "restored True"]
    assert err.strip() == "stopping: the last finished step is saved; press Ctrl-C again to stop at once"


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_stops_at_once(second):
    process = start(LOOP, "stubborn")
    read_until(process, "running")
    process.send_signal(signal.SIGINT)
    read_until(process, "requested")
    process.send_signal(second)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    # The loop's own last word may be torn: stopping at once is stopping in the middle of a print.
    assert out.endswith("stopped at once\nrestored True\n")


# A terminal's Ctrl-C and a scheduler's SIGTERM reach every process, so also a data worker forked inside the context.
WORKER = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from videomae.engine.interrupt import graceful_interrupt

ask, answer = os.pipe(), os.pipe()
with graceful_interrupt() as interrupt:
    worker = os.fork()
    if worker == 0:
        while True:
            word = os.read(ask[0], 1)
            os.write(answer[1], word)
    print("running", flush=True)
    while not interrupt.requested:
        pass
    os.write(ask[1], b"x")
    assert os.read(answer[0], 1) == b"x"
    print("worker answers", flush=True)
    os.kill(worker, signal.SIGKILL)
"""


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_forked_workers_leave_both_signals_to_their_parent(number):
    process = start(WORKER)
    read_until(process, "running")
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.splitlines() == ["worker answers"]
    assert err.count("stopping: ") == 1


# The step waits for data that never comes. What it changed is discarded; the update is never half done.
STEP = """
import os, signal, sys
from videomae.engine.interrupt import StopRequested, graceful_interrupt

number, when = signal.Signals[sys.argv[1]], sys.argv[2]
never, _ = os.pipe()
with graceful_interrupt() as interrupt:
    try:
        for step in range(1, 4):
            with interrupt.discardable():
                if when == "waiting":
                    print("waiting", flush=True)
                    os.read(never, 1)
            if when == "updating" and step == 2:
                os.kill(os.getpid(), number)
            print("updated", step, flush=True)
    except StopRequested as stop:
        print(stop, stop.exit_status, isinstance(stop, KeyboardInterrupt), flush=True)
"""


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_discardable_work_is_left_at_once_even_where_it_waits_for_ever(number, status):
    process = start(STEP, number.name, "waiting")
    read_until(process, "waiting")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.splitlines() == [f"stopped by {number.name} {status} True"]


@pytest.mark.slow
@LINUX
def test_a_signal_between_discardable_parts_is_obeyed_at_the_next_one():
    out, err = start(STEP, "SIGTERM", "updating").communicate(timeout=60)
    assert out.splitlines() == ["updated 1", "updated 2", "stopped by SIGTERM 143 True"], err


@pytest.mark.slow
@LINUX
def test_a_stop_that_a_finalizer_swallowed_is_raised_when_the_discardable_part_ends():
    code = """
import os, signal
from videomae.engine.interrupt import StopRequested, graceful_interrupt

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass

with graceful_interrupt() as interrupt:
    try:
        with interrupt.discardable():
            Finalized()
            print("lost", flush=True)
    except StopRequested:
        print("stopped", flush=True)
"""
    out, err = start(code).communicate(timeout=60)
    assert out == "lost\nstopped\n", err


# The signal is sent when the gradients of the last layer are there, and has the time of nine layers to arrive.
BACKWARD = """
import os, signal, threading
import torch
from videomae.engine.interrupt import StopRequested, graceful_interrupt, interruptible_backward

def send():
    last_layer_done.wait()
    os.kill(os.getpid(), signal.SIGTERM)

torch.set_num_threads(1)
net = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(10)])
last_layer_done = threading.Event()
threading.Thread(target=send).start()
interruptible_backward(net.parameters())
with graceful_interrupt() as interrupt:
    try:
        with interrupt.discardable():
            loss = net(torch.ones(1024, 1024)).sum()
            net[-1].weight.register_post_accumulate_grad_hook(lambda _: last_layer_done.set())
            loss.backward()
    except StopRequested:
        print("first layer done:", net[0].weight.grad is not None)
"""


@pytest.mark.slow
@LINUX
def test_a_backward_pass_on_the_cpu_is_left_between_two_layers():
    out, err = start(BACKWARD).communicate(timeout=120)
    assert out == "first layer done: False\n", err


@pytest.mark.slow
@LINUX
def test_sigterm_sent_twice_in_a_row_as_by_timeout_is_one_request():
    code = """
import os, signal
from videomae.engine.interrupt import graceful_interrupt

with graceful_interrupt() as interrupt:
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    print("still saving", flush=True)
"""
    out, err = start(code).communicate(timeout=60)
    assert out == "still saving\n", err


@pytest.mark.slow
@LINUX
@pytest.mark.slow
def test_ignored_signal_stays_ignored():
    code = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
from videomae.engine.interrupt import graceful_interrupt

with graceful_interrupt() as interrupt:
    os.kill(os.getpid(), signal.SIGINT)
    print(interrupt.requested, signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
"""
    out, err = start(code).communicate(timeout=60)
    assert out == "False True\n", err


def test_handlers_are_restored_after_an_error():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyError), graceful_interrupt():
        raise KeyError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_nothing_happens():
    seen = []

    def work():
        before = signal.getsignal(signal.SIGINT)
        with graceful_interrupt() as interrupt:
            seen.append((interrupt.requested, interrupt.signal, signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, None, True)]
