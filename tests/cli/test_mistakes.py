"""Every mistake in one sentence: in the configuration, on the command line, of the place."""

import subprocess
import sys

import pytest
from PIL import Image
from test_run import ROOT, TINY

from mim_jax.cli import main
from mim_jax.data.synthetic import lesions

MISTAKES = {
    "no_root": ({"data.root": "{tmp}/nowhere"}, "does not exist"),
    "no_positive": ({"data.root": "{tmp}/tree", "data.positive": "warts"}, "warts"),
    "too_few": ({"data.procedural_positives": 3, "data.folds": 5}, "5"),
    "size": ({"data.image_size": 100}, "multiples of 32, not 100: try 96 or 128"),
    "mask_larger": ({"mask.size": 64}, "does not fit the image"),
    "mask_other": ({"mask.size": 12}, "set mask_size=16"),
    "batch": ({"training.batch_size": 100}, "exceeds the 6 training images"),
    "metric": ({"evaluation.metric": "psnr"}, "ssim_hbd, ssim, hbd, mae, mse"),
    "window": ({"evaluation.window": "box"}, "unknown window 'box'"),
    "generator": ({"generator.name": "vae"}, "context_encoder, unet"),
    "resamples": ({"evaluation.resamples": 0}, "evaluation.resamples must be between 1"),
    "miss_rate": ({"decision.miss_rate": 2.0}, "decision.miss_rate must be between"),
    "paper_rule": ({"decision.rule": "paper", "evaluation.metric": "hbd"}, "rule=calibrated"),
    "decay": ({"optimizer.decay": "none"}, "cosine, linear"),
    "duplicates": ({"data.duplicates": "drop"}, "choose one of group, error, ignore"),
    "margin": ({"mask.margin": 20}, "does not fit the image"),
    "holes": ({"evaluation.holes": 2}, "holes must be 1, 4, 5, 9, got 2"),
    "reduce": ({"evaluation.reduce": "max"}, "choose one of mean, min"),
    "two_sources": ({"data.root": "{tmp}/tree", "data.sources.msld": "{tmp}"}, "name one of the two"),
    "no_source": ({"data.sources.msld": "{tmp}/nowhere"}, "nowhere"),
    "diverged": ({"optimizer.learning_rate": 1e30}, "lower --config.optimizer.learning_rate"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name, tmp_path, capsys, monkeypatch):
    from configs.mim import get_config

    monkeypatch.setattr(main, "use_compilation_cache", lambda: None)
    (tmp_path / "tree" / "mpox").mkdir(parents=True)
    Image.fromarray(lesions.render("mpox", 0, size=48)).save(tmp_path / "tree" / "mpox" / "a.png")
    fields, expected = MISTAKES[name]
    config = get_config("quick")
    for field, value in {**TINY, **fields}.items():
        section, leaf = field.rsplit(".", 1)
        part = config
        for name in section.split("."):
            part = part[name]
        part[leaf] = value.format(tmp=tmp_path) if isinstance(value, str) else value
    status = main.execute(
        "train", config=config.to_dict(), workdir=str(tmp_path / "run"), device="auto", paths=[]
    )
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("launch.py: ")]
    assert status == 1
    assert len(said) == 1 and expected in said[0]


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--config=configs/mim.py:quik", "choose one of '', 'paper', 'quick'"),
        ("--config.data.rot=3", "no field data.rot; did you mean data.root?"),
        ("--config=configs/none.py", "configs/none.py"),
        ("--mode=rum", "run|train|evaluate|score|export|export_app|serve|check_data|compare"),
        ("--config.training.epochs=1.5", "invalid literal for int"),
    ],
)
def test_a_slip_on_the_command_line_is_one_sentence(flag, expected):
    done = subprocess.run(
        [sys.executable, "launch.py", "--workdir=/nonexistent/run", flag],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert expected in done.stderr and "Traceback" not in done.stderr


def test_an_unwritable_workdir_and_an_absent_gpu_are_named(tmp_path, capsys):
    from configs.mim import get_config

    config = get_config("quick").to_dict()
    (tmp_path / "file").write_text("")
    assert (
        main.execute("run", config=config, workdir=str(tmp_path / "file" / "run"), device="auto", paths=[])
        == 1
    )
    assert "choose another with --workdir" in capsys.readouterr().err
    if not any(device.platform == "gpu" for device in __import__("jax").devices()):
        assert main.execute("run", config=config, workdir=str(tmp_path / "run"), device="gpu", paths=[]) == 1
        assert "--device=gpu was asked for" in capsys.readouterr().err
