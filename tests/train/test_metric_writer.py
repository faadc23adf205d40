"""TensorBoard's event files, read by the description of their format; progress in a log."""

import io
import struct

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from mim_jax.train.metric_writer import Events, Recorder


def castagnoli(data):
    """CRC-32C bit by bit: the reflected polynomial of RFC 3720."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = castagnoli(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read(path):
    data, events = path.read_bytes(), []
    while data:
        length, check = struct.unpack("<QI", data[:12])
        body, after = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert (check, *after) == (masked(data[:8]), masked(body))
        events.append(Event.FromString(body))
        data = data[16 + length :]
    return events


def test_events_are_on_the_disk_at_once_in_the_format_of_tensorboard(tmp_path):
    writer = Events(tmp_path / "fold_0", purge_step=7)
    writer.scalars({"loss": 0.5, "d_fake": 2.0}, 7)
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    writer.image("inpainting", image, 8)
    (path,) = (tmp_path / "fold_0").glob("events.out.tfevents.*")
    version, begin, scalars, picture = read(path)
    assert version.file_version == "brain.Event:2"
    # Events from step 7 on that were written before the restart are void.
    assert (begin.session_log.status, begin.step) == (SessionLog.START, 7)
    assert {value.tag: value.simple_value for value in scalars.summary.value} == {"loss": 0.5, "d_fake": 2.0}
    assert [event.step for event in (scalars, picture)] == [7, 8]
    (value,) = picture.summary.value
    assert (value.tag, value.image.width, value.image.height) == ("inpainting", 6, 4)
    np.testing.assert_array_equal(Image.open(io.BytesIO(value.image.encoded_image_string)), image)


def test_progress_in_a_log_is_whole_lines(tmp_path, capsys):
    with Recorder(tmp_path) as recorder:
        recorder.start("training", total=2)
        recorder.describe("training fold 0 (of 2)")
        recorder.advance(2, loss_pixel=0.25)
        recorder.say("memory: enough")
    said = capsys.readouterr().err
    first, *_, notice, last = said.splitlines()
    assert "\r" not in said and first.startswith("training: 0 of 2 done, ")
    assert notice == "memory: enough"
    assert last.startswith("training fold 0 (of 2): 2 of 2 done, ") and last.endswith("loss_pixel=0.2500")
