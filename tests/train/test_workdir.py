"""A workdir has one run at a time; the next may start once that process is dead, however it died."""

import os
import re

import pytest
from launching import start
from small_training import configuration

from mim_jax.cli import main
from mim_jax.train import workdir

HOLD = """
import sys, time
from pathlib import Path
from mim_jax.train.workdir import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(10**6)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds `tmp_path`."""
    process = start("-c", HOLD, tmp_path)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_is_refused_while_the_first_lives(holder, tmp_path):
    with (
        pytest.raises(ValueError, match=rf"in use by process {holder.pid} on .*--workdir"),
        workdir.hold(tmp_path),
    ):
        pass
    holder.kill()
    holder.wait()
    with workdir.hold(tmp_path):
        assert re.match(rf"process {os.getpid()} on .+\n$", (tmp_path / workdir.LOCK).read_text())
    with workdir.hold(tmp_path):  # it was released at the end of the block
        pass
    assert [path.name for path in tmp_path.iterdir()] == [workdir.LOCK]


@pytest.mark.parametrize("mode", ["run", "train", "evaluate"])
def test_every_mode_that_writes_a_run_is_refused(mode, holder, tmp_path, capsys):
    config = configuration()
    workdir.write_json(tmp_path / "config.json", config)
    assert main.execute(mode, config=config, workdir=str(tmp_path), device="auto", paths=[]) == 1
    assert f"is in use by process {holder.pid} on" in capsys.readouterr().err
    assert not (tmp_path / "data.json").exists()


def test_a_sealed_file_reads_back_and_a_changed_one_does_not(tmp_path):
    path = tmp_path / "a.json"
    content = {"rates": {2: 0.1, 10: float("nan")}, "pair": (1, 2), "wall_time": 3.0}
    workdir.write_json(path, content, sealed=True)
    found = workdir.read_json(path)
    assert found["pair"] == [1, 2] and workdir.SEAL not in found
    path.write_text(path.read_text().replace('"wall_time": 3.0', '"wall_time": 4.0'))
    workdir.read_json(path)
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(ValueError, match=r"a\.json.*does not match its content"):
        workdir.read_json(path)
