"""The model card: parsable, escaped, and as cautious as the results."""

import json
import re

import pytest

from mim_jax.report.report import model_card
from tests.invented import HOSTILE, evaluated

yaml = pytest.importorskip("yaml", reason="front matter is read by another implementation")


def front(card: str):
    return yaml.safe_load(card.split("---\n")[1])


def cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


def test_front_matter_names_the_headline_and_the_data():
    results = evaluated().results
    header = front(model_card(results))
    (entry,) = header["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "MIM on a folder" and "not-a-medical-device" in header["tags"]
    assert result["dataset"] == {"name": "folder", "type": "0123abcd"}
    (metric,) = result["metrics"]
    mean = results["auroc"]["augmented"]["mim"]["ssim_hbd"]["mean"]
    assert metric["type"] == "roc_auc" and metric["value"] == pytest.approx(mean, abs=5.01e-5)


def test_card_states_use_results_failures_and_hashes():
    results = evaluated().results
    difference = results["differences"]["brightness"]["ssim_hbd"]
    difference |= {"mean": -0.1, "low": -0.2, "high": -0.05, "low_folds": -0.3, "high_folds": -0.01}
    results["per_class"]["mim"]["nv"]["mean"] = 0.0123
    card = model_card(results)
    assert "**This is research software and not a medical device.**" in card
    (row,) = [line for line in card.splitlines() if line.startswith("| darkness")]
    assert row.replace("\u2212", "-").endswith(
        "| -0.1000 [-0.2000, -0.0500] | [-0.3000, -0.0100] | worse than it |"
    )
    header = "| lowest AUROC by class | images | AUROC | by images |"
    assert f"{header}\n| --- | --- | --- | --- |\n| nv | 7 | 0.0123" in card
    flat = " ".join(card.split())
    assert ") 1 of 12 plain test images of mpox are missed and 4 are undecided; 9 of 27 others" in flat
    assert "14 are undecided. One in ten is missed. One in ten is a false alarm." in flat
    for fact in ("0123abcd", "paper 0.881", "jax | 0.10.2", "seed | 3", "parameters of fold 2 | aa"):
        assert fact in card
    assert "procedural" not in card


def test_a_run_on_procedural_images_says_that_it_says_nothing():
    card = model_card(evaluated(notice="These say nothing about mpox.").results)
    assert card.index("say nothing about mpox") < card.index("## Intended use")
    assert "procedural-images" in front(card)["tags"]


def test_what_comes_from_data_stays_text():
    results = evaluated(notice=HOSTILE).results
    data, clinical, sheet = results["data"], results["clinical"], results["robustness"]
    results["title"] = data["source"] = data["digest"] = results["decision"]["rule"] = HOSTILE
    clinical["source"] = clinical["digest"] = HOSTILE
    sheet["axes"] = {HOSTILE: {**sheet["axes"]["noise"], "unit": HOSTILE}}
    data["positive"], data["classes"], data["groups"] = HOSTILE, {HOSTILE: 3}, {HOSTILE: 3}
    data["remarks"] = [HOSTILE]
    results["environment"]["versions"] = {HOSTILE: HOSTILE}
    card = model_card(results)
    assert front(card)["model-index"][0]["name"].startswith('x$\\frac$"><script>')
    body = re.sub(r"`[^`]*`", "", card.split("---\n", 2)[2].replace("\\`", ""))
    assert "<" not in body.replace("\\<", "")  # no tag survives
    tables = re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE)
    assert len(tables) > 6
    for table in tables:
        assert len({cells(line) for line in table.splitlines()}) == 1


def test_a_small_run_has_a_card_and_the_same_results_the_same_one():
    results = evaluated(folds=1, methods=("mim",)).results
    results["clinical"] = results["robustness"] = None
    results["decision"] |= {"table": {}, "thresholds": [None]}
    card = model_card(results)
    assert (
        "No clinical test was run." in card
        and "No degraded photographs were tested." in card
        and "No decision on the training class" in card
    )
    assert card == model_card(json.loads(json.dumps(results)))
