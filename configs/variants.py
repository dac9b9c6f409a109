"""What the words of a recipe's variant do: changes that several recipes share."""

from ml_collections import ConfigDict

RAND_AUGMENT = "rand-m9-mstd0.5-inc1"
CIFAR_STATISTICS = {  # mean and standard deviation of the training images
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
XCIT = {"n12": "nano_12", "s12": "small_12", "m12": "medium_12", "l12": "large_12"}


def pick(arg: str | None, **choices: tuple[str, ...]) -> dict[str, str]:
    """Read "m12,eps8": at most one word of each choice, the first is the default.

    A first word "" makes a choice that need not be made.
    """
    picked = {name: words[0] for name, words in choices.items()}
    for word in filter(None, (arg or "").split(",")):
        homes = [name for name, words in choices.items() if word in words]
        if not homes:
            known = "; ".join(" or ".join(filter(None, w)) for w in choices.values())
            raise ValueError(f"config variant {word!r} is unknown; there are {known}")
        picked[homes[0]] = word
    return picked


def imagenet(c: ConfigDict, name: str = "imagenet2012") -> None:
    """ImageNet, or its hundred classes, at 224 pixels; one per cent is held out."""
    c.data.name = name
    c.data.train_split, c.data.val_split = "train[:99%]", "train[99%:]"
    c.data.test_split = "validation"
    c.data.image_size = 224
    c.data.transform.name = "imagenet"


def jitter(c: ConfigDict, strength: float) -> None:
    """Colour jitter; 0 for none."""
    c.data.augment.brightness = c.data.augment.contrast = strength
    c.data.augment.saturation = strength


def normalize(c: ConfigDict, mean: tuple, std: tuple) -> None:
    """Normalisation inside the model, so that attacks act on [0, 1]."""
    c.model.args.mean, c.model.args.std = mean, std


def heavy(c: ConfigDict) -> None:
    """The canonical augmentation of XCiT: RandAugment, MixUp, CutMix, erasing."""
    jitter(c, 0.0)
    c.data.policy = RAND_AUGMENT
    c.data.mixing.mixup, c.data.mixing.cutmix = 0.8, 1.0
    c.data.augment.erasing = 0.25


def trades(c: ConfigDict) -> None:
    """Turn a config into TRADES with ten steps, as the CIFAR recipes have it."""
    c.attack.args.steps = 10
    c.objective = ConfigDict({"name": "trades"})
    c.objective.args = ConfigDict(
        {"beta": 6.0, "label_smoothing": 0.0, "attack_bn": "eval"}
    )


def standard(c: ConfigDict) -> None:
    """Turn a config into its twin without an attack; validation still attacks."""
    c.objective = ConfigDict({"name": "standard"})
    c.objective.args = ConfigDict({"label_smoothing": 0.1})
    c.checkpoint.best_metric = "val/clean_accuracy"


def thesis_rates(c: ConfigDict) -> None:
    """Learning rates around the schedule as the thesis prints them."""
    rates = {"warmup_epochs": 5, "warmup_lr": 5e-6, "min_lr": 5e-5}
    c.optim.schedule.args.update(rates)


def pod(c: ConfigDict, per_core: int) -> None:
    """64 TPU v4 cores; the learning rate grows with the batch."""
    c.data.batch_size, c.model.args.bn_group = 64 * per_core, per_core
    c.optim.lr_scaling = "linear"


def as_published(c: ConfigDict) -> None:
    """The `paper` profile: BatchNorm in the attack and selection as in the TPU runs."""
    if c.objective.name != "standard":
        c.objective.args.attack_bn = "train_update"
    if c.objective.name == "adversarial":
        c.objective.args.clean_forward = "update"
    c.data.train_split, c.data.val_split = "train", c.data.test_split
