"""Stop requests: Ctrl-C lets the current epoch finish; a scheduler's SIGTERM leaves a few seconds.

Python runs a signal handler only when the main thread returns from compiled code, and an epoch or a
compilation may keep it there for minutes. So another thread learns of SIGTERM too, through a pipe that the
signal itself writes to, and after `GRACE` seconds it saves what it can and ends the process.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

GRACE = 3.0  # seconds after SIGTERM until the current epoch is abandoned; the rest of 10 s is for saving
GOES_ON = "the same command with the same --workdir resumes from there"


class Terminated(KeyboardInterrupt):
    """SIGTERM, when nothing has to be saved first."""


class Request:
    """A stop request that a loop checks between two steps."""

    def __init__(self) -> None:
        self.number: int | None = None  # signal number; None = no request yet
        self.lock = threading.Lock()  # held while checkpoints are written
        # Functions that save a running training's last state and name its epoch, under any key.
        self.rescues: dict[object, Callable[[], str]] = {}

    def rescue(self) -> str:
        """Save all running trainings and return a message that says so."""
        with self.lock:  # never released: the process ends with it
            saved = [save() for save in list(self.rescues.values())]
        return f"stopped after {' and '.join(saved) or 'the work done so far'} and saved: {GOES_ON}"


@contextmanager
def requested(say: Callable[[str], None]) -> Iterator[Request]:
    """Record the first SIGINT or SIGTERM in a request, so that the current epoch can be saved.

    A second SIGINT stops at once. If the block still runs `GRACE` seconds after SIGTERM, `Request.rescue` is
    called and the process ends with status 0, or 1 if that fails.
    """
    request = Request()

    def note(number: int) -> None:
        if request.number is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return  # schedulers may repeat the signal
        request.number = number
        patience = "a second Ctrl-C stops at once" if number == signal.SIGINT else f"at most {GRACE:g} s"
        say(f"stopping: finishing and saving the current epoch first ({patience})")

    with _handled(dict.fromkeys((signal.SIGINT, signal.SIGTERM), note), request.rescue):
        yield request


@contextmanager
def terminable(sentence: str) -> Iterator[None]:
    """Raise `Terminated` on SIGTERM; `GRACE` seconds later print `sentence` and exit with status 0."""

    def terminate(number: int) -> None:
        raise Terminated

    with _handled({signal.SIGTERM: terminate}, lambda: sentence):
        yield


@contextmanager
def _handled(handlers: Mapping[int, Callable[[int], None]], rescue: Callable[[], str]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    heard, hears = os.pipe()
    os.set_blocking(hears, False)
    over = threading.Event()

    def watch() -> None:
        while number := os.read(heard, 1):  # empty once the other end is closed
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
        watcher.join()  # if it is saving, the process ends in that thread
        os.close(heard)


def _leave(rescue: Callable[[], str]) -> None:
    """End the process now: device computations cannot be cancelled, and a normal exit would wait for them."""
    status = 0
    try:
        sentence = rescue()
    except Exception as error:  # of any type: the scheduler waits no longer
        sentence, status = str(error), 1
    print(f"\nmim_jax: {sentence}", file=sys.stderr, flush=True)  # below an unfinished progress bar
    sys.stdout.flush()
    os._exit(status)
