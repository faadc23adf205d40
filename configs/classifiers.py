"""The classifiers that the paper compares MIM with (its section 3.3): trained on mpox against known classes, and also tested on unknown classes.

    python launch.py --config=configs/classifiers.py:resnet50 --workdir=runs/resnet50 --config.data.root=/path/to/images
    python launch.py --mode=compare --workdir=runs/compared runs/mim runs/resnet50

Data, folds, optimiser, epochs, learning rate and decay are taken from configs/mim.py, field by field: the paper says that they "were consistent". The
paper's mean AUROC: Swin-B 0.6306, ResNet50 0.6221, MobileNetV3-Large 0.5755. Variants: `resnet50`, `mobilenet_v3_large`, `swin_b` at full size, and
`quick`, a narrow MobileNetV3-Large on small procedural images, which takes minutes on two CPU cores and says nothing about mpox.
"""

from ml_collections import ConfigDict

from configs import mim

# Sections and fields of configs/mim.py that a classifier does not have.
SECTIONS = ("detector", "features", "mask", "generator", "discriminator", "loss", "decision")
FIELDS = {
    "data": ("held_out",),
    "training": ("autoencoder", "panel_every"),
    "evaluation": ("metric", "window", "bins", "region", "holes", "reduce", "more_holes", "robustness_images"),
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the configuration named `variant`."""
    if variant not in VARIANTS:
        raise ValueError(
            f"configs/classifiers.py has no variant {variant!r}: choose one of {', '.join(map(repr, VARIANTS))}, as in "
            "--config=configs/classifiers.py:resnet50"
        )
    config = mim.get_config("quick" if variant == "quick" else "")
    del config.seeds
    for section in SECTIONS:
        del config[section]
    for section, names in FIELDS.items():
        for name in names:
            del config[section][name]

    config.data.known = ("chickenpox", "measles", "hfmd")  # classes to train on besides the positive class; all others are unknown to the network

    config.classifier = classifier = ConfigDict()
    classifier.merged = True  # two classes, mpox and the known others combined; False = each known class separately (the paper's text has both)
    classifier.pretrained = ""  # safetensors file in torchvision or timm naming; "" = from scratch (the paper names no pre-training)
    VARIANTS[variant](classifier)
    return config


def _resnet50(classifier: ConfigDict) -> None:
    classifier.name = "resnet50"
    classifier.width = 64  # features of the first layer


def _mobilenet_v3_large(classifier: ConfigDict) -> None:
    classifier.name = "mobilenet_v3_large"
    classifier.width = 1.0  # factor on the features of every layer
    classifier.dropout = 0.2  # before the last layer


def _swin_b(classifier: ConfigDict) -> None:
    classifier.name = "swin_b"
    classifier.width = 128  # features of the first stage
    classifier.drop_path = 0.5  # probability that the last block is skipped in training; grows from 0 over the blocks


def _quick(classifier: ConfigDict) -> None:
    _mobilenet_v3_large(classifier)
    classifier.width = 0.25


VARIANTS = {
    "resnet50": _resnet50,
    "mobilenet_v3_large": _mobilenet_v3_large,
    "swin_b": _swin_b,
    "quick": _quick,
}
