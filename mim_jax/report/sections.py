"""Sections of the report: select and order plain values from the results for the templates."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mim_jax.decide.decision import SCORE_NAMES
from mim_jax.evaluate.method_names import DETECTORS, REFERENCE, method_name, ordered
from mim_jax.report.format import VERDICTS, duration, place, verdict

Results = Mapping[str, Any]

# Methods shown besides MIM and the best baseline in figures with room for only a few.
SHOWN = ("mean_fill", "autoencoder", "color_neighbors")
AXES = {  # of the robustness sheet, in its order
    "noise": "noise",
    "blur": "blur",
    "jpeg": "JPEG",
    "brightness": "darker",
    "white_balance": "warmer light",
    "rotation": "rotation",
    "crop": "crop",
    "mask_position": "hole position",
    "mask_size": "patch size",
}


def reference_of(results: Results) -> str:
    """The method that decides; MIM for older results, which do not name it."""
    found: str = results.get("reference", REFERENCE)
    return found


def sections(results: Results) -> dict[str, Any]:
    """Values for the report template besides the figures: the results and what is derived from them."""
    metric, reference = results["decision"]["metric"], reference_of(results)
    missing: dict[str, Any] = {"unusable": [], "passed_over": [], "doubtful": []}  # in older results
    data = {**missing, **results["data"], "source": place(results["data"]["source"])}
    clinical, sheet, wall = results["clinical"], results["robustness"], results["wall_time"]
    augmented, positive = results["auroc"]["augmented"], data["positive"]
    groups = groups_of_classes(results)
    of_positive = data["classes"].get(positive, 0)
    order = [name for name in SCORE_NAMES if name in augmented[reference]]
    names = {  # methods scored by their own score instead of the metric are marked
        name: method_name(name) + ("" if metric in augmented[name] else " *") for name in ordered(augmented)
    }
    by_all_metrics = [name for name in ordered(augmented) if set(order) <= set(augmented[name])]
    return {
        **results,
        "data": data,
        "clinical": clinical and {**missing, **clinical, "source": place(clinical["source"])},
        "reference": reference,
        "subject": method_name(reference),
        "metric": metric,
        "metrics": order,
        "positive": positive,
        "baselines": baselines(results),
        "detectors": [name for name in ordered(results["differences"]) if name in DETECTORS],
        "variants": ordered(results["variants"]),
        "outcomes": outcomes(results),
        "own_scores": any(metric not in augmented[name] for name in names),
        "decided": sides(results["decision"]["table"], positive),
        "names": names,
        "by_all_metrics": by_all_metrics,
        "positive_images": of_positive,
        "other_images": sum(data["classes"].values()) - of_positive,
        "other_classes": len(data["classes"]) - (positive in data["classes"]),
        "positive_share": positive_share(results),
        "levels": sorted(results["operating"][reference]["sensitivity_at_specificity"], key=float),
        "extremes": {end: results["splits"][number] for end, number in extremes(results).items()},
        "parts": {
            part: {"methods": found, "names": [names[method] for method in found]}
            for part in ("group", "class")
            if (found := ranked(results[f"per_{part}"], reference, names))
        },
        "kinds": {
            name: groups.get(name, "other classes")
            for name in (*data["classes"], *results["decision"]["table"])
        }
        | {positive: "training class"},
        **_decision(results),
        "same_sources": results.get("same_sources"),
        "tones": results.get("tones", {}),
        "axes": dict(axes(sheet).values()) if sheet else {},
        "held_out": results.get("held_out"),
        "times": {f"train, fold {k}": duration(seconds) for k, seconds in enumerate(wall["train"])}
        | {name: duration(wall[name]) for name in ("evaluate", "total")},
        "facts": facts(results),
        "config_lines": json.dumps(results["config"], indent=2, ensure_ascii=False).split("\n"),
    }


def baselines(results: Results) -> list[str]:
    """The baselines in order: every method that is neither a detector nor a variant of MIM."""
    others = (*results["variants"], *DETECTORS)
    return [method for method in ordered(results["differences"]) if method not in others]


def outcomes(results: Results) -> dict[str, int]:
    """Count the verdicts against the baselines, the worst for the deciding method first."""
    metric = results["decision"]["metric"]
    found = Counter(verdict(results["differences"][name][metric])[0] for name in baselines(results))
    return {words: found[words] for words in reversed(VERDICTS) if found[words]}


def leading(values: Mapping[str, Any], metric: str) -> Any:
    """Value under `metric` or, for a method with a single score of its own, under that score."""
    return values[metric] if metric in values else next(iter(values.values()))


def positive_share(results: Results) -> float:
    """Share of positives in the augmented test sets, mean over the folds."""
    shares = [split["augmented"] / (split["augmented"] + split["negatives"]) for split in results["splits"]]
    return sum(shares) / len(shares)


def shown_methods(results: Results) -> list[str]:
    """The detectors, the baseline with the highest mean AUROC and the methods in `SHOWN`, in order."""
    metric, aurocs = results["decision"]["metric"], results["auroc"]["augmented"]
    known = baselines(results)
    best = sorted(known, key=lambda method: -leading(aurocs[method], metric)["mean"])[:1]
    best += [method for method in DETECTORS if method in aurocs]
    return ordered({reference_of(results), *best, *(method for method in SHOWN if method in known)})


def extremes(results: Results) -> dict[str, int]:
    """Indices of the "best" and the "worst" fold by AUROC; only "best" if they are the same fold."""
    summary = results["auroc"]["augmented"][reference_of(results)][results["decision"]["metric"]]
    values = [fold["value"] for fold in summary["folds"]]
    best, worst = values.index(max(values)), values.index(min(values))
    return {"best": best, "worst": worst} if best != worst else {"best": best}


def ranked(
    found: Mapping[str, Mapping[str, Any]], reference: str, methods: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Values by group or class of those of `methods` that have them, the reference's highest AUROC first."""
    own = found.get(reference, {})
    order = sorted(own, key=lambda name: (-own[name]["mean"], name))
    kept = [method for method in methods if order and method in found]
    return {method: {name: found[method][name] for name in order} for method in kept}


def groups_of_classes(results: Results) -> dict[str, str]:
    """Map class -> group, for the classes other than the training class."""
    groups, positive = results["data"]["class_groups"], results["data"]["positive"]
    return {name: group for group, names in groups.items() for name in names if name != positive}


def axes(sheet: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Map name -> (title, axis) of a robustness sheet, in display order; unknown ones last, by name."""
    found = sheet["axes"]
    names = [*(name for name in AXES if name in found), *sorted(found.keys() - AXES.keys())]
    return {name: (AXES.get(name, name), found[name]) for name in names}


def coverage(row: Mapping[str, Any]) -> float:
    """Share of images decided: the mean of both sides' shares, so that both weigh equally."""
    return sum(row[side]["decided"] / row[side]["images"] for side in ("training", "others")) / 2


def error_rate(side: Mapping[str, int]) -> float | None:
    """Share of wrong decisions among those made; None if none was made."""
    return side["wrong"] / side["decided"] if side["decided"] else None


def sides(table: Mapping[str, Mapping[str, int]], positive: str) -> dict[str, dict[str, int]]:
    """Sum the decisions over classes: the training class ("own") and all "others"."""
    kinds = ("n", "mpox_like", "cannot_tell", "not_mpox_like")
    found = {side: dict.fromkeys(kinds, 0) for side in ("own", "others")}
    for name, counts in table.items():
        for kind in kinds:
            found["own" if name == positive else "others"][kind] += counts[kind]
    return found


def facts(results: Results) -> dict[str, Any]:
    """Versions, device, seed and hashes: item -> value."""
    environment = dict(results["environment"])
    found = {**environment.pop("versions"), **environment, "seed": results["seed"]}
    hashes = results["training"]["parameter_hash"]
    for split, value in zip(results["splits"], hashes, strict=True):
        found[f"parameters of fold {split['fold']}"] = value
    return found


def _decision(results: Results) -> dict[str, Any]:
    decision, positive = results["decision"], results["data"]["positive"]
    order = [positive, *groups_of_classes(results), *sorted(decision["table"])]
    return {
        "thresholds": list(zip(results["splits"], decision["thresholds"], decision["upper"], strict=True)),
        "families": sorted({name for row in decision["reliability"] for name in row["false_alarms"]}),
        "reliability": [
            {
                **row,
                "coverage": coverage(row),
                "missed_decided": error_rate(row["training"]),
                "alarms_decided": error_rate(row["others"]),
            }
            for row in decision["reliability"]
        ],
        "decided_classes": sorted(decision["table"], key=order.index),
        "paper_table": decision["alternatives"].get("paper", {}).get("table", {}),
        "rules": [
            {
                **rule,
                "name": name,
                "chosen": name == decision["name"],
                **sides(rule["table"], positive),
            }
            for name, rule in decision["alternatives"].items()
        ],
    }
