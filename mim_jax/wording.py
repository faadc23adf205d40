"""Names, numbers and verdicts in words: what the report, its figures and the model card say alike.

Everything here is plain text; pages and markdown escape what comes from data.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

REFERENCE = "mim"
METRIC_NAMES = {"ssim_hbd": "SSIM+HBD", "ssim": "SSIM", "hbd": "HBD", "mae": "MAE", "mse": "MSE"}
# In the order of every table: MIM, the controls, the variants of MIM, then the classifiers.
METHOD_NAMES = {
    "mim": "MIM",
    "mean_fill": "mean-colour fill",
    "harmonic_fill": "harmonic fill",
    "telea_fill": "Telea fill",
    "untrained": "untrained network",
    "autoencoder": "autoencoder",
    "laplacian_variance": "blur",
    "brightness": "darkness",
    "color_mahalanobis": "colour distance",
    "color_neighbors": "colour neighbours",
    "holes_mean": "several holes, mean",
    "holes_min": "several holes, minimum",
    "mask_region": "hole alone",
    "resnet50": "ResNet50",
    "mobilenet_v3_large": "MobileNetV3-Large",
    "swin_b": "Swin-B",
}
METHOD_CLAUSES = {  # what each method but MIM is
    "mean_fill": "the hole filled with the mean colour of the rest of the image",
    "harmonic_fill": "the hole filled smoothly from the pixels around it",
    "telea_fill": "the hole filled inwards from its rim by OpenCV's fast marching",
    "untrained": "the same generator with its initial random weights",
    "autoencoder": "the same generator trained on the pixel loss alone, without a discriminator",
    "laplacian_variance": "how blurry the image is, and nothing else",
    "brightness": "how dark the image is, and nothing else",
    "color_mahalanobis": "how near each channel's mean and spread are to those of the training images",
    "color_neighbors": "how near the colour histogram is to its nearest three of the training images",
    "holes_mean": "holes in several places, the mean of their scores",
    "holes_min": "holes in several places, the lowest of their scores",
    "mask_region": "original and inpainting compared inside the hole alone",
    "resnet50": "a residual convolutional network of 50 layers, trained to classify",
    "mobilenet_v3_large": "a small convolutional network made for phones, trained to classify",
    "swin_b": "a transformer that attends within shifted windows, trained to classify",
}
SCORE_NAMES = {  # of a classifier
    "probability": "probability of mpox",
    "msp": "highest probability",
    "energy": "energy",
    "mahalanobis": "Mahalanobis distance",
    "neighbors": "neighbours",
    "positive_energy": "logit of mpox",
    "positive_mahalanobis": "Mahalanobis distance to mpox",
    "positive_neighbors": "neighbours among mpox",
}
SCORE_CLAUSES = {  # what each of them is
    "probability": "what the paper ranks by",
    "msp": "of any class the network was trained on (maximum softmax probability)",
    "energy": "how much evidence there is for any class: log of the summed exponentials of the logits",
    "mahalanobis": "how near the features are to the nearest class mean, in units of their spread",
    "neighbors": "how near the features are to the fifth nearest training image of any class",
    "positive_energy": "how much evidence there is for mpox, the other classes left aside",
    "positive_mahalanobis": "how near the features are to the mean of mpox, in units of their spread",
    "positive_neighbors": "how near the features are to the fifth nearest training image of mpox",
}
# On the two kinds of interval, for whoever prints both.
INTERVALS = (
    "The interval by images is the 95 % percentile interval of a cluster bootstrap: whole groups are drawn, "
    "so that an image and its augmented copies, or the images of one patient, count as one; the trained "
    "networks are as they are. The interval by images and folds counts the folds and their networks as drawn "
    "too: it is about networks trained in this way, and there is none for a single fold."
)


def metric_name(metric: str) -> str:
    """The metric as the paper writes it."""
    return METRIC_NAMES.get(metric, metric)


def method_name(method: str) -> str:
    return METHOD_NAMES.get(method, method)


def ordered(methods: Iterable[str]) -> list[str]:
    """The methods in the order of every table; unknown ones last, by name."""
    places = {method: place for place, method in enumerate(METHOD_NAMES)}
    return sorted(methods, key=lambda method: (places.get(method, len(places)), method))


def controls(results: Mapping[str, Any]) -> list[str]:
    """What MIM has to beat: every method that is neither MIM nor a variant of it, in order."""
    return [method for method in ordered(results["differences"]) if method not in variants(results)]


def variants(results: Mapping[str, Any]) -> list[str]:
    """Other scores of the same networks, in order."""
    return ordered(results["variants"])


def metrics(values: Mapping[str, Any]) -> list[str]:
    """The metrics among the keys, in the order of the tables."""
    return [metric for metric in METRIC_NAMES if metric in values]


def leading(values: Mapping[str, Any], metric: str) -> Any:
    """What is held under `metric`, or by a method with a single score of its own under that."""
    return values[metric] if metric in values else next(iter(values.values()))


def positive_share(results: Mapping[str, Any]) -> float:
    """The share of positives in the augmented test sets, mean over the folds."""
    shares = [split["augmented"] / (split["augmented"] + split["negatives"]) for split in results["splits"]]
    return sum(shares) / len(shares)


def printable(value: object) -> str:
    """The text of `value` with line breaks, control and direction characters spelled out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in str(value)
    )


def number(value: float | None) -> str:
    """Four digits behind the point, or "none"."""
    return f"{value:.4f}".replace("-", "\u2212") if value is not None and math.isfinite(value) else "none"


def signed(value: float) -> str:
    return f"{'+' if value >= 0 else ''}{number(value)}"


def percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"


def interval(estimate: Mapping[str, Any], kind: str = "") -> str:
    """[low, high]; kind "_folds" is the interval that counts the folds as drawn, "none" for a single fold."""
    low, high = estimate[f"low{kind}"], estimate[f"high{kind}"]
    return "none" if low is None else f"[{number(low)}, {number(high)}]"


def spread(estimate: Mapping[str, Any]) -> str:
    return f"{number(estimate['mean'])} ± {number(estimate['std'])}"


def verdict(estimate: Mapping[str, Any], *, base: float = 0.0) -> tuple[str, str]:
    """What the intervals of a difference, or of an AUROC against `base`, say.

    Returns:
      "better than", "worse than" or "not distinguishable from", which need both intervals on one side of
      `base`, where there are two; and what the interval by images alone would say, where that is more.
    """
    by_images = _side(estimate, "", base)
    by_folds = by_images if estimate["low_folds"] is None else _side(estimate, "_folds", base)
    words = {1: "better than", -1: "worse than", 0: "not distinguishable from"}
    if by_images and not by_folds:
        return words[0], f"these networks: {'better' if by_images > 0 else 'worse'}"
    return words[by_images if by_images == by_folds else 0], ""


def _side(estimate: Mapping[str, Any], kind: str, base: float) -> int:
    """1 where the interval lies above `base`, -1 below, 0 around it."""
    return (estimate[f"low{kind}"] > base) - (estimate[f"high{kind}"] < base)
