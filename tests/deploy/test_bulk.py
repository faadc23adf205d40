"""Bulk scoring writes one row per input; killed and started again, it ends as if never interrupted."""

import contextlib
import csv
import dataclasses
import hashlib
import http.server
import json
import os
import shutil
import signal
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from launching import ROOT, finish, start
from PIL import Image

import mim_jax
from mim_jax.cli import main
from mim_jax.data.quality import Gate
from mim_jax.deploy import format
from mim_jax.deploy.bulk import inputs, output, run, storage, summary
from mim_jax.deploy.bulk.worker import Worker, digest_of
from tests.deploy.small import striped
from tests.stress.bulk import descendants
from tests.test_recorded import ARCHIVE

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SIZE = 32  # of the recorded detector
ROWS = 4
GATE = {"data": {"gate": dict.fromkeys(dataclasses.asdict(Gate()), True)}}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The workdir and the export of tests/test_recorded.py, both calibrated."""
    root = tmp_path_factory.mktemp("recorded")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture(scope="module")
def exported(recorded):
    """(folder, digest) of a detector."""
    return recorded / "export", format.digest(recorded / "export")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with ten pictures, one of them dark, and two files that are not pictures."""
    root = tmp_path_factory.mktemp("photos")
    (root / "inner").mkdir()
    for number, image in enumerate(striped(10, 2 * SIZE)):
        Image.fromarray(image // 8 if number == 4 else image).save(root / "inner" / f"{number} é.png")
    (root / "damaged.jpg").write_bytes(b"\xff\xd8\xff" + bytes(50))
    (root / "empty.png").touch()
    return root


def score(source, detector, root, column="", rows=ROWS, gate=None):
    """Score in this process with small parts; return the rows and the number of parts scored now."""
    root, (path, digest) = storage.absolute(str(root)), detector
    output.make_folder(root)
    how = {"detector": str(path), "digest": digest, "gate": gate or Gate()}
    found = run.claim(root, source=str(source), column=column, rows=rows, tell=print, **how)
    engine = {"on_ray": False, "address": "", "actors": 0, "gpus": False, "prepare": None, "tell": print}
    scored = [*run.score(found, found.finished(), detector=str(path), **engine)]
    return pa.concat_tables(found.read()), len(scored)


def same(one, other, *left_out):
    one, other = (each.drop(["seconds", *left_out]).to_pylist() for each in (one, other))
    return one == other


@pytest.fixture(scope="module")
def whole(photos, exported, tmp_path_factory):
    root = tmp_path_factory.mktemp("whole") / "out"
    table, scored = score(photos, exported, root)
    assert scored == 3
    return root, table


def test_every_input_is_a_row_with_what_the_detector_says(photos, exported, whole):
    rows = whole[1].to_pylist()
    assert [row["id"] for row in rows] == list(range(12))
    assert [row["path"] for row in rows] == sorted(str(path) for path in photos.rglob("*.*"))
    detector = mim_jax.load(exported[0])
    for row in rows:
        data = Path(row["path"]).read_bytes()
        assert (row["sha256"], row["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
        assert (row["detector"], row["version"]) == (exported[1], mim_jax.__version__)
        (found,) = detector.assess([detector.read(row["path"])], alpha=0.1)
        assert (row["decision"], row["reason"]) == (found.decision, " ".join(found.reasons))
        assert (row["score"], row["p_value"]) == (found.score, found.p_value)
        assert {name: row[name] for name in detector.metrics} == (
            found.similarities or dict.fromkeys(detector.metrics)
        )
        assert (row["width"], row["height"]) == ((2 * SIZE,) * 2 if "inner" in row["path"] else (None, None))
    assert sum(row["decision"] == "unusable" for row in rows) == 3 and "too dark" in rows[6]["reason"]


def test_tables_of_paths_and_of_bytes_give_the_same_rows(photos, exported, whole, tmp_path):
    names = [row["path"] for row in whole[1].to_pylist()]
    data = [Path(name).read_bytes() for name in names]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        relative = [os.path.relpath(name, tmp_path) for name in names]
        csv.writer(file).writerows([["n", "path"], *enumerate([*relative[:-1], names[-1]])])
    pq.write_table(pa.table({"file": names}), tmp_path / "paths.parquet")
    pq.write_table(pa.table({"image": data}), tmp_path / "bytes.parquet", row_group_size=5)
    (tmp_path / "many").mkdir()
    for number, some in enumerate((data[:7], data[7:])):
        wrapped = pa.table({"image": [{"bytes": each, "path": "a"} for each in some]})
        pq.write_table(wrapped, tmp_path / "many" / f"{number}.parquet", row_group_size=3)
    assert same(score(tmp_path / "list.csv", exported, tmp_path / "a")[0], whole[1], "path")
    assert same(score(tmp_path / "paths.parquet", exported, tmp_path / "b", "file")[0], whole[1])
    assert same(score(tmp_path / "bytes.parquet", exported, tmp_path / "c", "image", 5)[0], whole[1], "path")
    many = score(tmp_path / "many", exported, "memory://bulk/many", "image")[0]
    assert same(many, whole[1], "path")
    assert many["path"].to_pylist()[7] == f"{tmp_path}/many/1.parquet#0"
    assert same(score(f"{photos}/**/*.*", exported, tmp_path / "d")[0], whole[1])
    with pytest.raises(ValueError, match=r"has no column 'path', it has image: name one with --column"):
        inputs.find_inputs(str(tmp_path / "bytes.parquet"))


def test_globs_stay_within_a_folder_unless_told(photos):
    assert len(storage.expand(f"{photos}/*")) == 2 and len(storage.expand(f"{photos}/inner/[0-4]*.png")) == 5
    assert len(storage.expand(f"{photos}/**/*.png")) == 11
    with pytest.raises(ValueError, match="matches no file"):
        inputs.find_inputs(f"{photos}/*.bmp")
    with pytest.raises(ValueError, match="does not exist"):
        inputs.find_inputs(f"{photos}/nowhere")


def test_what_is_gone_given_twice_or_not_named_is_a_row(photos, exported, tmp_path):
    name = str(photos / "inner" / "0 é.png")
    pq.write_table(pa.table({"path": [name, "gone.png", name, None, "s3:/x"]}), tmp_path / "list.parquet")
    rows = score(tmp_path / "list.parquet", exported, tmp_path / "out")[0].to_pylist()
    assert len(rows) == 5 and rows[0]["score"] == rows[2]["score"] is not None
    assert rows[1]["reason"] == "no such file" and "names no file" in rows[3]["reason"]


class Refusal(http.server.BaseHTTPRequestHandler):
    """A bucket's answer to a client without permission to read it."""

    def do_HEAD(self):
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_bucket_that_refuses_is_a_row(exported, tmp_path, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        keys = {"ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "DEFAULT_REGION": "us-east-1"}
        for name, value in (keys | {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}).items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        pq.write_table(pa.table({"path": ["s3://refused/a b.jpg"]}), tmp_path / "list.parquet")
        (row,) = score(tmp_path / "list.parquet", exported, tmp_path / "out")[0].to_pylist()
        assert row["path"] == "s3://refused/a b.jpg" and row["decision"] == "unusable"
        assert row["reason"].startswith("not readable (") and "ACCESS_DENIED" in row["reason"]
        with pytest.raises(ValueError, match=r"^s3://refused/photos cannot be read: .*ACCESS_DENIED"):
            inputs.find_inputs("s3://refused/photos")
        server.shutdown()


def test_a_table_that_goes_away_is_a_reason_for_each_of_its_rows(photos, exported, tmp_path):
    data = [(photos / "inner" / f"{number} é.png").read_bytes() for number in range(6)]
    pq.write_table(pa.table({"image": data}), tmp_path / "a.parquet")
    found = inputs.find_inputs(str(tmp_path / "a.parquet"), "image")
    given = list(inputs.with_bytes(found.part(range(2, 5)), "image"))
    assert [each[2] for each in given] == data[2:5]
    (tmp_path / "a.parquet").unlink()
    assert all("not readable" in reason for _, reason, _ in inputs.with_bytes(found.part(range(3)), "image"))


def test_what_is_missing_or_damaged_is_scored_again_and_nothing_else(photos, exported, whole, tmp_path):
    (tmp_path / "killed").mkdir()
    for name in (output.LIST, f"_{output.RUN}.0abc.tmp"):  # left by a start that got no further
        (tmp_path / "killed" / name).write_text("half")
    assert score(photos, exported, tmp_path / "killed")[1] == 3
    root = shutil.copytree(whole[0], tmp_path / "out")
    parts = sorted(root.glob("part-*"))
    parts[0].unlink()
    parts[1].write_bytes(parts[1].read_bytes()[:-20])
    (root / "_part-00000000.parquet.0abc.tmp").write_text("half")
    table, scored = score(photos, exported, root)
    assert scored == 2 and same(table, whole[1])
    assert not list(root.glob("*.tmp"))
    assert same(pq.read_table(root), whole[1])  # readers skip files that are not parts


def test_another_detector_gate_or_input_is_refused(photos, exported, whole, tmp_path):
    other = shutil.copytree(exported[0], tmp_path / "other")
    manifest = json.loads((other / format.MANIFEST).read_text())
    (other / format.MANIFEST).write_text(json.dumps(manifest | {"written": "later"}))
    digest = format.digest(other)
    for how, message in (
        ({"detector": (other, digest)}, f"detector: '{exported[1]}' there, '{digest}' here"),
        ({"source": tmp_path}, "inputs.source"),
        ({"gate": Gate(blurred=False)}, "gate.blurred: True there, False here"),
    ):
        with pytest.raises(ValueError, match="belongs to another run") as error:
            score(**{"source": photos, "detector": exported, "root": whole[0], **how})
        assert message in str(error.value)
    with pytest.raises(ValueError, match="this is another export"):
        score(photos, (exported[0], digest), tmp_path / "new")
    with pytest.raises(ValueError, match=r"holds 'damaged.jpg' but no _run.json"):
        score(photos, exported, photos)
    pq.write_table(pa.table({"path": ["a.png"]}), tmp_path / "list.parquet")
    score(tmp_path / "list.parquet", exported, tmp_path / "out")
    pq.write_table(pa.table({"path": ["a.png", "b.png"]}), tmp_path / "list.parquet")
    with pytest.raises(ValueError, match=r"has changed since the run .* \(1 paths are new, 0 gone\)"):
        score(tmp_path / "list.parquet", exported, tmp_path / "out")


def test_a_workdir_is_known_by_what_it_holds(photos, recorded, exported, whole, tmp_path):
    table, _ = score(photos, (recorded / "workdir", None), tmp_path / "out")
    digest = table["detector"][0].as_py()
    assert digest == digest_of(mim_jax.load(recorded / "workdir")) != exported[1]
    scores = [each["score"].to_pylist() for each in (table, whole[1])]
    np.testing.assert_allclose(*(np.array(each, float) for each in scores), atol=1e-4)
    with pytest.raises(ValueError, match="only exports have a digest"):
        score(photos, (recorded / "workdir", digest), tmp_path / "new")


def command(source, exported, root, *more):
    return ["--mode=bulk", f"--input={source}", f"--detector={exported[0]}", f"--output={root}", *more]


def test_the_command_sums_up_and_sees_a_finished_run_before_anything_starts(
    photos, exported, tmp_path, capsys, monkeypatch
):
    how = {"workdir": None, "device": "auto", "paths": [], "input": str(photos), "detector": str(exported[0])}
    how |= {"output": str(tmp_path / "out"), "actors": 0, "config": GATE}
    assert main.execute("bulk", **how) == 0
    said = capsys.readouterr().out
    assert "rows: 12 (mpox_like" in said and "unusable, by first reason: " in said and "too dark 1" in said
    found = json.loads((tmp_path / "out" / "_summary.json").read_text())
    assert found["rows"] == 12 and found["decisions"]["unusable"] == 3 and len(found["slowest"]) == 10
    assert 0 <= found["drift"]["distance"] <= 1 and (tmp_path / "out" / "_drift.png").stat().st_size > 10_000
    monkeypatch.setattr(Worker, "load", None)
    assert main.execute("bulk", **how) == 0
    again = capsys.readouterr()
    assert "already finished" in again.err and said.startswith(again.out.partition("parts,")[0])
    assert main.execute("bulk", **{**how, "address": "auto"}) == 1
    assert "--actors=0 scores in this process" in capsys.readouterr().err
    assert main.execute("bulk", **{**how, "input": None}) == 1
    assert "--mode=bulk needs --input" in capsys.readouterr().err


def test_the_distance_of_p_values_from_uniform():
    rng = np.random.default_rng(0)
    calibration, batch, far = 60, 200, []
    for _ in range(300):  # exchangeable: the conformal p-values of one draw
        known, new = np.sort(rng.normal(size=calibration)), rng.normal(size=batch)
        p_values = (1 + np.searchsorted(known, new, side="right")) / (calibration + 1)
        grid = np.arange(1, calibration + 2) / (calibration + 1)
        brute = max(abs(np.mean(p_values <= t + 1e-9) - t) for t in grid)
        assert summary.distance(p_values, calibration) == pytest.approx(brute)
        far.append(brute > 1.358 * np.sqrt(1 / calibration + 1 / batch))
    assert 0.01 < np.mean(far) < 0.09  # one in twenty


def test_the_cluster_of_the_documents_passes_rays_own_parser():
    util = pytest.importorskip("ray.autoscaler._private.util")
    import yaml

    config = yaml.safe_load((ROOT / "docs" / "ray_cluster.yaml").read_text())
    util.validate_config(util.prepare_config(config))
    config["available_node_types"]["worker"]["max_worker"] = 3
    with pytest.raises(Exception, match="max_worker"):
        util.validate_config(util.prepare_config(config))


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}  # /proc/net


def listening(processes):
    """Addresses on which processes listen, in the format of /proc/net."""
    links = [link for each in processes for link in Path(f"/proc/{each}/fd").glob("*")]
    inodes = set()
    for link in links:
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(link))
    tables = [Path("/proc/net", name).read_text().splitlines() for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table]
    return [row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


def test_on_ray_kills_cost_nothing_and_only_this_machine_is_listened_to(photos, exported, tmp_path):
    pytest.importorskip("ray")
    names = [str(photos / "inner" / f"{number} é.png") for number in range(10)]
    count = 2 * output.ROWS + 7
    pq.write_table(pa.table({"path": [names[row % 10] for row in range(count)]}), tmp_path / "list.parquet")
    root = tmp_path / "out"
    arguments = ["launch.py", *command(tmp_path / "list.parquet", exported, root), "--actors=1"]
    process = start(*arguments)
    while not list(root.glob("part-*")) and process.poll() is None:
        time.sleep(0.05)
    heard = listening([process.pid, *descendants(process.pid)])
    assert len(heard) > 3 and set(heard) <= LOOPBACK
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {path.name: path.stat().st_mtime_ns for path in root.glob("part-*")}
    process = start(*arguments)
    workers = []
    while not workers and process.poll() is None:
        workers = [each for each, title in descendants(process.pid).items() if "ray::Worker.score" in title]
        time.sleep(0.05)
    for each in workers[:1]:
        os.kill(each, signal.SIGKILL)
    ((out, err),) = finish(process)
    assert f"rows: {count:,} (" in out and ("resumed: " in err or "already finished" in err)
    assert all((root / name).stat().st_mtime_ns == when for name, when in before.items())
    table = pq.read_table(root)
    assert table["id"].to_pylist() == list(range(count))
    scores = table["score"].to_pylist()
    assert all(one == other for one, other in zip(scores, scores[10:], strict=False))
