"""Fine-tuning of XCiT from ImageNet on CIFAR, at patch size 4.

Paper: Debenedetti, Sehwag, Mittal 2023, arXiv:2209.07399, table 8;
`xcit-adv-finetuning.yaml` and, for `standard`, `xcit-finetuning.yaml`.

    robustvit train --config configs/imagenet_xcit_adv.py:s12 --workdir runs/s12_eps4
    robustvit train --config configs/cifar_finetune.py:s12,cifar10 --workdir runs/ft

Variants: s12, m12, l12 (the model); cifar10, cifar100; trades, standard; repo, thesis;
paper. It starts from `init_from`, a run or a weight file, which is runs/s12_eps4 (or
m12, l12) unless given; all of its weights fit, but for the head. Where the repository
and the thesis differ, `repo` is the default:
    rate: 2e-4 x sqrt(1024 / 512), as timm scales it for Adam; thesis: 2e-4
    augmentation: padded crop, rotation by 2 degrees, colour jitter 0.25; thesis: a
    random resized crop of scale (0.8, 1.2) and ratio (0.95, 1.05)

Published clean accuracy and robust accuracy (AutoAttack, linf 8/255):
    CIFAR-10: S12 90.06 / 56.14, M12 91.30 / 57.27, L12 91.73 / 57.58
    CIFAR-100: S12 67.34 / 32.19, M12 69.21 / 34.21, L12 70.76 / 35.08
"""

from ml_collections import ConfigDict

from configs import common, variants


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe; `arg` as in "m12,cifar100"."""
    variant = variants.pick(
        arg,
        model=("s12", "m12", "l12"),
        dataset=("cifar10", "cifar100"),
        objective=("trades", "standard"),
        numbers=("repo", "thesis"),
        profile=("", "paper"),
    )
    c = common.default()
    c.model.name = f"xcit_{variants.XCIT[variant['model']]}_p4_32"
    c.init_from, c.init_new_head = f"runs/{variant['model']}_eps4", True
    c.data.name = variant["dataset"]
    c.data.train_split, c.data.val_split = "train[:98%]", "train[98%:]"
    c.threat.schedule.name = "constant"
    c.optim.schedule.args.warmup_epochs = 5
    c.optim.schedule.args.min_lr = 5e-6
    if variant["objective"] == "standard":
        _standard(c)
    else:
        _trades(c, variant["dataset"], variant["numbers"])
    if variant["profile"] == "paper":
        variants.as_published(c)
    return c


def _trades(c, dataset, numbers):
    variants.trades(c)
    variants.normalize(c, *variants.CIFAR_STATISTICS[dataset])
    c.epochs, c.cooldown_epochs = 20, 2
    c.data.batch_size, c.model.args.bn_group = 1024, 128
    c.optim.lr = 2e-4
    if numbers == "thesis":
        c.data.transform.name = "imagenet"
        c.data.transform.args = ConfigDict({"scale": (0.8, 1.2), "ratio": (0.95, 1.05)})
    else:
        c.optim.lr_scaling = "sqrt"
        c.data.transform.args = ConfigDict({"padding": 4, "degrees": 2.0})
        variants.jitter(c, 0.25)


def _standard(c):
    variants.standard(c)
    variants.normalize(c, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    c.epochs, c.cooldown_epochs = 30, 10
    c.data.transform.name = "imagenet"
    variants.jitter(c, 0.4)
    c.optim.lr = 5e-5
