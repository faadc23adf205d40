"""Live records of a run: metrics.jsonl, TensorBoard events and a progress bar."""

import io
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

_IN_A_LOG = "{desc}: {n_fmt} of {total_fmt} done, {elapsed} so far, {remaining} left{postfix}"


def progress_bar(title: str, total: int, **how: Any) -> tqdm:
    """Make a progress bar on a terminal; in a log, a line every 20 seconds. `how` is passed to tqdm."""
    if sys.stderr.isatty():
        return tqdm(desc=title, total=total, dynamic_ncols=True, **how)
    seldom = {"mininterval": 20.0, "maxinterval": 20.0}
    return tqdm(desc=title, total=total, file=_Lines(), bar_format=_IN_A_LOG, **seldom, **how)


class _Lines:
    """Standard error for tqdm in a log: a line per update, where a terminal overwrites one line."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


class Recorder(AbstractContextManager["Recorder"]):
    """Writer of `workdir/metrics.jsonl` (one line per event), TensorBoard events and the progress bar.

    Every process but the first writes its events to a file of its own until `merge_events`.
    """

    def __init__(self, workdir: Path, *, process: int = 0):
        self.path = workdir / (f"metrics.process_{process}.jsonl" if process else "metrics.jsonl")
        self._tensorboard = workdir / "tensorboard"
        self._events: dict[tuple[str, int], Events] = {}
        self._bar: tqdm | None = None

    def __exit__(self, *_: object) -> None:
        self.finish()

    def rewind(self, role: str, fold: int, epoch: int, step: int) -> None:
        """Delete records of this training of `fold` after `epoch`, whose last update is `step`."""
        name = f"fold_{fold}" if role == "mim" else f"fold_{fold}_{role}"
        self._events[role, fold] = Events(self._tensorboard / name, purge_step=step + 1)

        def kept(event: Mapping[str, Any]) -> bool:
            other = (event.get("role"), event.get("fold")) != (role, fold)
            return other or event.get("epoch", 0) <= epoch

        if self.path.exists():
            _write_events(self.path, filter(kept, read_events(self.path)))

    def epoch(self, role: str, fold: int, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
        """Record the mean metrics of one epoch."""
        event = {"event": "epoch", "role": role, "fold": fold, "epoch": epoch, "step": step, **metrics}
        with self.path.open("a") as file:
            file.write(json.dumps(event) + "\n")
        self._events[role, fold].scalars(metrics, step)

    def panel(self, role: str, fold: int, step: int, image: np.ndarray) -> None:
        """Record a picture, uint8 `[H, W, 3]`, in TensorBoard."""
        self._events[role, fold].image("inpainting", image, step)

    def start(self, title: str, total: int) -> None:
        """Begin a stage of `total` units, shown by `progress_bar`."""
        self.finish()
        self._bar = progress_bar(title, total)

    def advance(self, count: int = 1, **shown: float) -> None:
        """Advance the bar and show some numbers next to it."""
        if self._bar is not None:
            if shown:
                self._bar.set_postfix({name: f"{value:.4f}" for name, value in shown.items()}, refresh=False)
            self._bar.update(count)

    def skip(self, count: int) -> None:
        """Advance the bar past work done in an earlier run, without counting it in the speed."""
        if self._bar is not None:
            self._bar.initial += count
            self._bar.update(count)

    def say(self, sentence: str) -> None:
        """Print a sentence above the bar."""
        tqdm.write(sentence, file=sys.stderr)

    def describe(self, title: str) -> None:
        """Rename the current stage."""
        if self._bar is not None:
            self._bar.set_description_str(title, refresh=False)

    def finish(self) -> None:
        """End the current stage."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Events:
    """A file of TensorBoard events; every call appends one and closes the file.

    No thread buffers events that a crash or a full disk would lose.
    """

    def __init__(self, folder: Path, *, purge_step: int):
        """Begin a file in `folder`, made if missing; it voids events of older files from `purge_step` on."""
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names.
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._write(Event(file_version="brain.Event:2"), 0)
        self._write(Event(session_log=SessionLog(status=SessionLog.START)), purge_step)

    def scalars(self, metrics: Mapping[str, float], step: int) -> None:
        """Append some numbers at a step."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(Event(summary=Summary(value=values)), step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Append a picture, uint8 `[H, W, 3]`."""
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        height, width, _ = image.shape
        picture = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=file.getvalue()
        )
        self._write(Event(summary=Summary(value=[Summary.Value(tag=tag, image=picture)])), step)

    def _write(self, event: Event, step: int) -> None:
        event.wall_time, event.step = time.time(), step
        with self._path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())


def merge_events(workdir: Path) -> None:
    """Merge the events of all processes into metrics.jsonl; of two events of one epoch the later is kept."""
    parts = sorted(workdir.glob("metrics.process_*.jsonl"))
    if not parts:
        return
    whole = workdir / "metrics.jsonl"
    events = [event for path in (whole, *parts) for event in read_events(path)]
    latest = {(event.get("role"), event.get("fold"), event.get("epoch")): event for event in events}
    _write_events(whole, latest.values())
    for path in parts:
        path.unlink()


def _write_events(path: Path, events: Iterable[Mapping[str, Any]]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(event) + "\n" for event in events))
    os.replace(temporary, path)


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read a metrics.jsonl, skipping lines that a crash cut short."""
    events = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events
