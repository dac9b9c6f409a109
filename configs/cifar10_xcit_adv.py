"""Adversarial training of XCiT on CIFAR-10 from scratch.

Paper: Debenedetti, Sehwag, Mittal 2023, A Light Recipe to Train Robust Vision
Transformers, arXiv:2209.07399, table 8; the numbers are the repository's
`xcit-adv-training-cifar10.yaml`.

    robustvit train --config configs/cifar10_xcit_adv.py:s12 --workdir runs/cifar10

Variants: s12, m12, l12, n12, tiny (the model; tiny is for a CPU); trades, fgsm, pgd,
standard (the objective); eps8, eps4; synthetic; repo, thesis; paper (attack and
BatchNorm as on the published TPUs, selection on the test split). `synthetic` makes half
of each batch generated images (Rebuffi et al. 2021), which doubles the steps of an
epoch; --config.data.mix.name=synthetic:FILE says where they lie. Where the repository
and the thesis differ, `repo` is the default:
    epochs: 100 and 2; thesis: 300 and 2

Published clean accuracy and robust accuracy (AutoAttack) of S12, TRADES at eps 8/255:
    82.84 / 39.49; synthetic 80.01 / 47.88
"""

from ml_collections import ConfigDict

from configs import common, variants

SYNTHETIC = "synthetic:data/cifar_ddpm_improvedddpm_sorted_images.bin"


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe; `arg` as in "s12,pgd,eps8"."""
    variant = variants.pick(
        arg,
        model=("s12", "m12", "l12", "n12", "tiny"),
        objective=("trades", "fgsm", "pgd", "standard"),
        eps=("eps8", "eps4"),
        mix=("", "synthetic"),
        numbers=("repo", "thesis"),
        profile=("", "paper"),
    )
    c = common.default()
    c.epochs, c.cooldown_epochs = 300 if variant["numbers"] == "thesis" else 100, 2
    c.model.name = f"xcit_{variants.XCIT.get(variant['model'], 'nano_12')}_p4_32"
    variants.normalize(c, *variants.CIFAR_STATISTICS["cifar10"])
    c.data.name = "cifar10"
    c.data.train_split, c.data.val_split = "train[:98%]", "train[98%:]"
    c.data.transform.name = "imagenet"  # a random resized crop, but a gentle one
    c.data.transform.args = ConfigDict({"scale": (0.8, 1.2), "ratio": (0.95, 1.05)})
    c.data.augment.erasing = 0.2
    c.threat.eps = {"eps8": "8/255", "eps4": "4/255"}[variant["eps"]]
    c.threat.schedule.name = "constant"
    c.optim.lr = 2e-4
    c.optim.schedule.args.warmup_epochs = 5
    c.optim.schedule.args.min_lr = 5e-6
    c.objective.args.label_smoothing = 0.0

    if variant["model"] == "tiny":
        small = {"dim": 96, "num_heads": 4, "depth": 4, "strides": (1, 2, 2, 2)}
        c.model.args.update(small | {"drop_path": 0.0})
        c.optim.lr = 1e-3
    _objective(c, variant["objective"])
    if variant["mix"]:
        c.data.mix.name = SYNTHETIC
    if variant["profile"] == "paper":
        variants.as_published(c)
    return c


def _objective(c, name):
    if name == "trades":
        variants.trades(c)
    elif name == "standard":
        variants.standard(c)
    elif name == "fgsm":
        c.threat.schedule.name = "linear"  # the ramp keeps one step from collapsing
    else:
        c.attack.args.steps = 10
