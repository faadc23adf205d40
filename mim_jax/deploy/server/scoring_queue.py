"""Queue in front of the scorer: one thread scores waiting images in batches, and answers each separately."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

import numpy as np

Answer = TypeVar("Answer")


class Busy(Exception):
    """The queue is full."""


class ScoringQueue(Generic[Answer]):
    """Calls one function from one thread, with a few images at a time.

    A device runs one program at a time, so a thread per caller would gain nothing and use memory for each.
    If a batch fails, its images are scored again one by one, so that no image can spoil another's answer.
    """

    def __init__(
        self, score: Callable[[Sequence[np.ndarray]], Sequence[Answer]], *, batch: int = 8, waiting: int = 64
    ):
        """Start the thread. At most `waiting` images wait; one call of `score` takes up to `batch` of them.

        `score` maps images to answers, one per image in the same order; no answer may depend on other images.
        """
        self._score = score
        self._batch = batch
        self._waiting: queue.Queue[tuple[np.ndarray, Future[Answer]] | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._work, name="scoring", daemon=True)
        self._thread.start()

    def submit(self, image: np.ndarray) -> Future[Answer]:
        """Queue an image and return a future of its answer; if cancelled before its turn it is not scored."""
        future: Future[Answer] = Future()
        try:
            self._waiting.put_nowait((image, future))
        except queue.Full:
            raise Busy from None
        return future

    def close(self) -> None:
        """Stop the thread after the waiting images are scored."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            items = [self._waiting.get()]
            while len(items) < self._batch and items[-1] is not None:
                try:
                    items.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            jobs = [item for item in items if item is not None]
            self._answer([job for job in jobs if job[1].set_running_or_notify_cancel()])
            if len(jobs) < len(items):
                return

    def _answer(self, jobs: Sequence[tuple[np.ndarray, Future[Answer]]]) -> None:
        if not jobs:
            return
        try:
            answers = self._score([image for image, _ in jobs])
            if len(answers) != len(jobs):  # before any answer is set, because none can be set twice
                raise ValueError(f"{len(answers)} answers to {len(jobs)} images")
            for (_, future), answer in zip(jobs, answers, strict=True):
                future.set_result(answer)
        # Catch everything: an error of the scorer goes to the waiting caller, and must not end the thread.
        except Exception as error:
            if len(jobs) == 1:
                jobs[0][1].set_exception(error)
                return
            for job in jobs:
                self._answer([job])
