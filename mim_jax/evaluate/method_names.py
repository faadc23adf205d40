"""Names of the methods that score the test images, in table order."""

from collections.abc import Iterable

REFERENCE = "mim"  # the method that all others are compared with
DETECTORS = ("mim", "features", "features_color", "combined")  # methods that may decide
VARIANTS = ("holes_mean", "holes_min", "mask_region", "feature_hbd")  # other uses of MIM's own networks
# The detectors, the baselines, the variants of MIM, then the classifiers.
METHOD_NAMES = {
    "mim": "MIM",
    "features": "frozen features",
    "features_color": "features and colours",
    "combined": "MIM, features and colours",
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
    "feature_hbd": "inpainting in frozen features",
    "resnet50": "ResNet50",
    "mobilenet_v3_large": "MobileNetV3-Large",
    "swin_b": "Swin-B",
}
METHOD_CLAUSES = {  # a description of each method but MIM
    "features": "similarity to the training images in the layers of a frozen network",
    "features_color": "the frozen network and colour histograms, with equal weight",
    "combined": "MIM, the frozen network and colour histograms, with equal weight",
    "mean_fill": "the hole filled with the mean colour of the rest of the image",
    "harmonic_fill": "the hole filled smoothly from the pixels around it",
    "telea_fill": "the hole filled inwards from its rim by OpenCV's fast marching",
    "untrained": "the same generator with its initial random weights",
    "autoencoder": "the same generator trained on the pixel loss alone, without a discriminator",
    "laplacian_variance": "blur of the image alone",
    "brightness": "darkness of the image alone",
    "color_mahalanobis": "similarity of each channel's mean and spread to those of the training images",
    "color_neighbors": "similarity of the colour histogram to the three nearest training images",
    "holes_mean": "several holes per image, mean of their scores",
    "holes_min": "several holes per image, lowest of their scores",
    "mask_region": "original and inpainting compared inside the hole only",
    "feature_hbd": "original and inpainting compared in the layers of the frozen network",
    "resnet50": "a residual convolutional network of 50 layers, trained to classify",
    "mobilenet_v3_large": "a small convolutional network made for phones, trained to classify",
    "swin_b": "a transformer that attends within shifted windows, trained to classify",
}


def method_name(method: str) -> str:
    """Display name of a method; an unknown method keeps its own name."""
    return METHOD_NAMES.get(method, method)


def ordered(methods: Iterable[str]) -> list[str]:
    """Sort methods in table order; unknown ones last, by name."""
    ranks = {method: rank for rank, method in enumerate(METHOD_NAMES)}
    return sorted(methods, key=lambda method: (ranks.get(method, len(ranks)), method))
