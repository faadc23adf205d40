"""Writer of TensorBoard event files."""

import io
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c


class Events:
    """A file of TensorBoard events; every call appends one and closes the file.

    No thread buffers events that a crash or a full disk would lose. The file format is TFRecord: length, its
    checksum, data, its checksum
    (https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details).
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
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        checks = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
        with self._path.open("ab") as file:
            file.write(length + checks[0] + data + checks[1])
