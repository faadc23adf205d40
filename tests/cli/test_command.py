"""The command line from any folder and console: configuration, refusals, output files and messages."""

import csv
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from launching import LIMIT, ROOT, environment, launch
from PIL import Image
from small_training import configuration, small_networks

from mim_jax.cli import command, main, score
from mim_jax.data.dataset import NOTICE
from mim_jax.data.synthetic import lesions
from mim_jax.train.workdir import read_config, write_json

ARCHIVE = ROOT / "tests" / "recorded" / "before_the_move.tar.xz"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a finished run on embedded images."""
    path = tmp_path_factory.mktemp("recorded")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(path, filter="data")
    return path / "workdir"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of two photographs, one with a name that few consoles can show."""
    path = tmp_path_factory.mktemp("photos")
    for i, name in enumerate(("患者 1.png", "b.png")):
        Image.fromarray(lesions.render("mpox", i, size=48)).save(path / name)
    return path


def configure(mode, *arguments, workdir=None, paths=()):
    file, overrides, rest = command.split(arguments)
    assert rest == []
    return command.configure(mode, workdir and str(workdir), list(map(str, paths)), file, overrides)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--config.trainng.epochs=3", "no field config.trainng.epochs; did you mean config.training.epochs?"),
        ("--config.epochs=3", "no field config.epochs; did you mean config.training.epochs?"),
        ("--config.loss.zzz=3", "no field config.loss.zzz; there are config.loss.adversarial_weight, "),
        ("--config.zzz.zzz=3", "there are config.data, config.decision, "),
        ("--config.training.epochs=1.5", "config.training.epochs must be a whole number, got '1.5'"),
        ("--config.training.epochs=", "config.training.epochs must be a whole number, got nothing"),
        ("--config.loss.real_weight=x", "config.loss.real_weight must be a number, got 'x'"),
        ("--config.data.strict=maybe", "config.data.strict must be True or False, got 'maybe'"),
        ("--config=configs/none.py", "there is no configuration file configs/none.py"),
        ("--config=configs/mim.py:quik", "choose one of '', 'paper', 'quick'"),
        ("--config", "--config needs a file"),
    ],
)
def test_a_slip_in_the_configuration_is_one_sentence(argument, expected):
    with pytest.raises(ValueError) as error:
        configure("run", argument)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_values_get_the_type_of_their_field():
    arguments = ("--config=configs/mim.py:quick", "--config.seeds=(3,1)", "--config.data.strict")
    config = configure("run", *arguments, "--config.loss.real_weight=1", "--config.data.root=1")
    assert config["seeds"] == (3, 1) and config["data"]["strict"] is True
    assert repr(config["loss"]["real_weight"]) == "1.0" and config["data"]["root"] == "1"
    assert configure("run", "--config.seeds=4")["seeds"] == (4,)
    assert configure("run", "--config.seeds=")["seeds"] == ()


def test_modes_use_the_configuration_of_the_run_and_refuse_other_values(run, tmp_path):
    recorded = read_config(run)
    assert configure("evaluate", workdir=run) == recorded != configure("evaluate", workdir=tmp_path)
    assert configure("evaluate", "--config.decision.rule=paper", workdir=run)["decision"]["rule"] == "paper"
    assert configure("score", "--config.training.epochs=4", workdir=run) == recorded  # its own value
    gate = configure("score", "--config.data.gate.blurred=False", workdir=run)["data"]["gate"]
    assert gate["blurred"] is False
    assert configure("compare", "--config.seed=5", workdir=tmp_path, paths=[run])["seed"] == 5
    for mode, argument, expected in (
        ("score", "--config.decision.rule=paper", "'calibrated' there, 'paper' here: change it with --mode="),
        (
            "serve",
            "--config.training.epochs=7",
            "accepts only config.data.gate, not config.training.epochs: 4",
        ),
        ("export", "--config.data.gate.blurred=False", "uses the configuration of the run, not config.data"),
        (
            "compare",
            "--config.decision.rule=paper",
            "accepts only config.evaluation.resamples and config.seed",
        ),
        ("score", "--config=configs/mim.py", ": leave it out"),
    ):
        with pytest.raises(ValueError, match=rf"^--mode={mode} .*") as error:
            configure(mode, argument, workdir=run, paths=[run])
        assert expected in str(error.value)
    assert configure("score") == {}  # no workdir: `execute` asks for it


def test_a_folder_of_several_seeds_names_them(run, tmp_path):
    for seed in (10, 2):
        shutil.copytree(run, tmp_path / f"seed_{seed}")
    for mode in ("score", "export", "serve"):
        with pytest.raises(ValueError, match=r"holds 2 runs, one per seed: name one .*seed_2, .*seed_10$"):
            configure(mode, workdir=tmp_path)
    found = configure("evaluate", workdir=tmp_path)
    assert found["seeds"] == (2, 10) and found["training"]["epochs"] == 4


def test_what_is_no_run_is_not_written_into(photos, run, tmp_path, capsys):
    config = configure("run", "--config=configs/mim.py:quick")

    def said(mode, workdir, *paths, **fields):
        given = {"config": {**config, **fields}, "workdir": str(workdir), "device": "auto", "paths": paths}
        assert main.execute(mode, **given) == 1
        return capsys.readouterr().err

    before = sorted(path.name for path in photos.iterdir())
    assert "holds 'b.png' but no config.json: choose a new or an empty folder" in said("train", photos)
    assert "holds 'b.png' but no seed_*" in said("train", photos, seeds=(1, 2))
    assert "holds 'b.png' but no comparison" in said("compare", photos, run)
    assert sorted(path.name for path in photos.iterdir()) == before
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "lost+found").mkdir()
    assert "exceeds the 48 training images" in said(
        "train", tmp_path, training={**config["training"], "batch_size": 99}
    )
    write_json(tmp_path / "config.json", {"model": {}})
    assert "is not the workdir of a run" in said("score", tmp_path, photos)


def test_a_wrong_type_stops_before_a_folder_is_made(tmp_path):
    for seeds in ("abc", "(0,1.5)"):
        flags = ("--config=configs/mim.py:quick", f"--workdir={tmp_path / 'run'}", f"--config.seeds={seeds}")
        _, said = launch(*flags, expect=1)
        assert said.startswith("mim_jax: ") and said.count("\n") == 1 and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_help_names_the_arguments():
    for flag in ("--help", "-h"):
        said, _ = launch(flag)
        assert "--mode=score --workdir=RUN [--output=FILE.csv] FILE_OR_FOLDER" in said
        assert "--port: Server port" in said and "--config.FIELD=VALUE" in said


@pytest.mark.parametrize("program", [["launch.py"], ["-m", "mim_jax"]])
def test_files_are_scored_from_any_folder_and_shown_on_any_console(program, run, photos, tmp_path):
    table = tmp_path / "table.csv"
    program = [str(ROOT / program[0]) if program[0] == "launch.py" else program[0], *program[1:]]
    arguments = [*program, "--mode=score", f"--workdir={run}", f"--output={table}", str(photos)]

    def scored(to=""):
        table.unlink(missing_ok=True)
        changed = environment(PYTHONIOENCODING="cp1252", PYTHONPATH=str(ROOT))
        command = ["sh", "-c", f'exec "$@" {to}', "sh", sys.executable, *arguments]
        process = subprocess.run(
            command, cwd="/", env=changed, timeout=LIMIT, capture_output=True, encoding="cp1252"
        )
        with table.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [Path(row["file"]).name for row in rows] == ["b.png", "患者 1.png"]
        assert all(NOTICE in row["reason"] for row in rows)
        assert process.returncode == 0
        return process

    process = scored()
    assert process.stderr == "" and f"warning: {NOTICE}" in process.stdout
    assert "\\u60a3\\u8005 1.png" in process.stdout and not (run / "scored.csv").exists()
    if program[0] == "-m":  # the consoles of one program are those of the other
        return
    scored("> /dev/full 2>&-" if os.path.exists("/dev/full") else ">&- 2>&-")


def test_a_table_that_cannot_be_written_does_not_cost_the_scores(run, photos, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(score.folders, "write_csv", full)
    given = {"config": configure("score", workdir=run), "workdir": str(run), "device": "auto"}
    assert main.execute("score", paths=[str(photos)], **given) == 1
    found = capsys.readouterr()
    assert "mpox_like" in found.out and "name another file with --output=FILE.csv" in found.err
    assert main.execute("score", paths=[str(photos)], output=str(photos / "b.png"), **given) == 1
    assert "--output must be a .csv file" in capsys.readouterr().err
    assert main.execute("export", paths=[], output="a.csv", **given) == 1
    assert "--output belongs to --mode=score and bulk" in capsys.readouterr().err


def test_a_run_says_where_it_begins_and_ends(tmp_path, capsys, compiled_quickly):
    workdir, fields = tmp_path / "run", {"data.folds": 2, "training.checkpoint_every": 1}

    def train(epochs):
        config = configuration(**fields, **{"training.epochs": epochs})
        if workdir.exists():  # as if configured for this many epochs from the start
            write_json(workdir / "config.json", config, sealed=True)
        assert main.execute("train", config=config, workdir=str(workdir), device="auto", paths=[]) == 0
        return capsys.readouterr()

    with small_networks():
        assert train(1).out == f"trained: {workdir}; evaluate it with --mode=evaluate\n"
        shutil.rmtree(workdir / "fold_1")
        assert "resumed: training fold 0 (of 2) from epoch 1\n" in train(2).err
        said = train(2).err
    assert "already trained: 2 of 2 trainings\n" in said and "resumed" not in said
