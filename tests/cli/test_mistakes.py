"""Mistakes in the configuration, on the command line, in paths and devices are told in one sentence."""

import jax
import pytest
from launching import TINY, launch
from PIL import Image

from configs.mim import get_config
from mim_jax.cli import main
from mim_jax.data.synthetic import lesions

MISTAKES = {
    "no_root": ({"data.root": "{tmp}/nowhere"}, "does not exist"),
    "no_positive": ({"data.root": "{tmp}/tree", "data.positive": "warts"}, "warts"),
    "too_few": ({"data.procedural_positives": 3, "data.folds": 5}, "5"),
    "size": ({"data.image_size": 100}, "multiples of 32, not 100: try 96 or 128"),
    "too_large": ({"data.image_size": 8192, "mask.size": 4096}, "more than a histogram can count"),
    "mask_larger": ({"mask.size": 64}, "does not fit the image"),
    "mask_other": ({"mask.size": 12}, "set mask_size=16"),
    "batch": ({"training.batch_size": 100}, "exceeds the 6 training images"),
    "metric": ({"evaluation.metric": "psnr"}, "ssim_hbd, ssim, hbd, mae, mse"),
    "window": ({"evaluation.window": "box"}, "unknown window 'box'"),
    "generator": ({"generator.name": "vae"}, "context_encoder, unet"),
    "resamples": ({"evaluation.resamples": 1}, "evaluation.resamples must be between 40"),
    "miss_rate": ({"decision.miss_rate": 2.0}, "decision.miss_rate must be between"),
    "paper_rule": ({"decision.rule": "paper", "evaluation.metric": "hbd"}, "rule=calibrated"),
    "decay": ({"optimizer.decay": "none"}, "cosine, linear"),
    "duplicates": ({"data.duplicates": "drop"}, "choose one of group, error, ignore"),
    "gate": ({"data.gate.training": "drop"}, "choose one of list, refuse, off"),
    "augmentation": ({"evaluation.augmentation": "other"}, "choose one of fixed, random"),
    "margin": ({"mask.margin": 20}, "does not fit the image"),
    "holes": ({"evaluation.holes": 2}, "holes must be 1, 4, 5, 9, got 2"),
    "reduce": ({"evaluation.reduce": "max"}, "choose one of mean, min"),
    "two_sources": ({"data.root": "{tmp}/tree", "data.sources.msld": "{tmp}"}, "name one of the two"),
    "no_source": ({"data.sources.msld": "{tmp}/nowhere"}, "nowhere"),
    "shards": ({"training.shards": 3}, "set --config.training.shards to a divisor"),
    "devices": ({"training.devices": 99}, "set --config.training.devices=0 to use all"),
    "held_out": ({"data.held_out": 0.7}, "data.held_out must be between 0 and 0.5"),
    "precision": ({"training.precision": "float16"}, "choose one of auto, bfloat16, float32"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name, tmp_path, capsys):
    (tmp_path / "tree" / "mpox").mkdir(parents=True)
    Image.fromarray(lesions.render("mpox", 0, size=48)).save(tmp_path / "tree" / "mpox" / "a.png")
    fields, expected = MISTAKES[name]
    config = get_config("quick")
    for field, value in {**TINY, **fields}.items():
        value = value.format(tmp=tmp_path) if isinstance(value, str) else value
        config.update_from_flattened_dict({field: value})
    arguments = {"config": config.to_dict(), "workdir": str(tmp_path / "run"), "device": "auto", "paths": []}
    assert main.execute("train", **arguments) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mim_jax: ")]
    assert len(said) == 1 and expected in said[0]


def test_weights_are_asked_for_before_anything_is_trained(tmp_path, capsys):
    config = get_config("quick")
    config.update_from_flattened_dict({**TINY, "features.backbone": "resnet50"})
    arguments = {"config": config.to_dict(), "workdir": str(tmp_path / "run"), "device": "auto", "paths": []}
    assert main.execute("run", **arguments) == 1
    assert "resnet50 comes without weights: give" in capsys.readouterr().err
    assert not list(tmp_path.rglob("fold_*"))


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--config.data.rot=3", "no field config.data.rot; did you mean config.data.root?"),
        ("--mode=rum", "run|train|evaluate|score|bulk|export|export_app|serve|check_data|compare"),
        ("--confg=3", "Unknown command line flag 'confg'"),
    ],
)
def test_a_slip_on_the_command_line_is_one_sentence(flag, expected):
    _, said = launch("--workdir=/nonexistent/run", flag, expect=1)
    assert expected in said and "Traceback" not in said


def test_an_unwritable_workdir_and_an_absent_gpu_are_named(tmp_path, capsys):
    config = get_config("quick").to_dict()
    (tmp_path / "file").write_text("")

    def run(workdir, device):
        return main.execute("run", config=config, workdir=str(workdir), device=device, paths=[])

    assert run(tmp_path / "file" / "run", "auto") == 1
    assert "choose another with --workdir" in capsys.readouterr().err
    if not any(device.platform == "gpu" for device in jax.devices()):
        assert run(tmp_path / "run", "gpu") == 1
        assert "--device=gpu was asked for" in capsys.readouterr().err
