"""Requests to stop: Ctrl-C lets the epoch under way finish; a scheduler's SIGTERM leaves a few seconds.

Python runs a signal's handler when the main thread comes back from compiled code, and an epoch or a
compilation may keep it there for minutes. So another thread hears of SIGTERM too, through a pipe that the
signal itself writes to, and after `GRACE` seconds saves what can be saved and ends the process.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

GRACE = 3.0  # seconds from SIGTERM until the epoch under way is given up: the save needs the rest of ten
GOES_ON = "the same command with the same --workdir goes on from there"


class Terminated(KeyboardInterrupt):
    """SIGTERM, where nothing has to be saved first."""


class Request:
    """A request to stop that a loop looks at between two steps."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the signal; None while nobody has asked
        self.lock = threading.Lock()  # held by whoever writes checkpoints
        # Each saves a training under way as it last stood, and says where that was; by any key.
        self.rescues: dict[object, Callable[[], str]] = {}

    def rescue(self) -> str:
        """Save everything that is under way, and return the sentence that says so."""
        with self.lock:  # never released: the process ends with it
            saved = [save() for save in list(self.rescues.values())]
        return f"stopped after {' and '.join(saved) or 'what was done'} and saved: {GOES_ON}"


@contextmanager
def requested(say: Callable[[str], None]) -> Iterator[Request]:
    """Note the first SIGINT or SIGTERM in a request, so that the epoch under way can be saved.

    A second SIGINT stops at once. Where the block still lasts `GRACE` seconds after SIGTERM, `Request.rescue`
    is called and the process ends with status 0.
    """
    request = Request()

    def note(number: int) -> None:
        if request.number is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return  # schedulers repeat themselves
        request.number = number
        patience = "a second Ctrl-C stops at once" if number == signal.SIGINT else f"for at most {GRACE:g} s"
        say(f"stopping: the epoch under way is finished and saved first; {patience}")

    with _handled(dict.fromkeys((signal.SIGINT, signal.SIGTERM), note), request.rescue):
        yield request


@contextmanager
def terminable(sentence: str) -> Iterator[None]:
    """Raise `Terminated` at SIGTERM and, `GRACE` seconds later, end the process: `sentence`, status 0."""

    def terminate(number: int) -> None:
        raise Terminated

    with _handled({signal.SIGTERM: terminate}, lambda: sentence):
        yield


@contextmanager
def _handled(handlers: Mapping[int, Callable[[int], None]], rescue: Callable[[], str]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's affair
        return
    heard, hears = os.pipe()
    os.set_blocking(hears, False)
    over = threading.Event()

    def watch() -> None:
        while number := os.read(heard, 1):  # nothing once the other end is closed
            if number[0] == signal.SIGTERM and not over.wait(GRACE):
                _leave(rescue)

    watcher = threading.Thread(target=watch, name="SIGTERM", daemon=True)
    watcher.start()
    pipe = signal.set_wakeup_fd(hears, warn_on_full_buffer=False)
    before = {number: signal.getsignal(number) for number in handlers}
    for number in handlers:
        signal.signal(number, lambda number, frame: handlers[number](number))
    try:
        yield
    finally:
        over.set()
        for number, previous in before.items():
            signal.signal(number, previous)
        signal.set_wakeup_fd(pipe)
        os.close(hears)
        watcher.join()  # where it is saving, the process ends there
        os.close(heard)


def _leave(rescue: Callable[[], str]) -> None:
    """End the process now: what a device computes cannot be called off, and leaving would wait for it."""
    status = 0
    try:
        sentence = rescue()
    except Exception as error:  # whatever it is, the scheduler waits no longer
        sentence, status = str(error), 1
    print(f"\nmim_jax: {sentence}", file=sys.stderr, flush=True)  # below a bar that is not ended
    sys.stdout.flush()
    os._exit(status)
