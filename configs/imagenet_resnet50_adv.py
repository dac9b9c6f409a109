"""Adversarial training of ResNet-50 with GELU on ImageNet: the comparison with XCiT.

Paper: Debenedetti, Sehwag, Mittal 2023, arXiv:2209.07399, table 6 (after Bai et al.
2021, arXiv:2111.05464); `resnet-adv-training.yaml`.

    robustvit train --config configs/imagenet_resnet50_adv.py --workdir runs/resnet50

Variants: eps4, eps8 (eps8 takes two attack steps); paper (BatchNorm and selection as on
the published TPUs). SGD with Nesterov momentum, the rate a tenth every 30 epochs, no
colour jitter.

The rate, 3.2, is the file's, whose batch is 64 on each core without saying how many
cores there are. By the usual 0.1 for 256 images it belongs to 8192, which is the batch
here; with another batch the rate follows. The file's warm-up starts at 3.2, so there is
none.

Published clean accuracy and robust accuracy (AutoAttack, 5,000 images):
    eps 4: 66.54 / 35.12 (the thesis compares with Bai et al.'s 67.38 / 35.51)
    eps 8: 58.08 / 17.15
"""

from ml_collections import ConfigDict

from configs import common, variants


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe; `arg` as in "eps8"."""
    variant = variants.pick(arg, eps=("eps4", "eps8"), profile=("", "paper"))
    c = common.default()
    c.epochs, c.cooldown_epochs = 100, 0
    c.model.name = "resnet50_gelu"
    c.model.args.drop_path = 0.0
    variants.imagenet(c)
    variants.normalize(c, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    c.data.crop_pct = 0.95
    c.data.batch_size = 8192
    c.threat.eps = {"eps4": "4/255", "eps8": "8/255"}[variant["eps"]]
    c.attack.args.steps = 2 if variant["eps"] == "eps8" else 1
    c.optim.name = "sgd"
    c.optim.lr, c.optim.lr_scaling = 3.2 * 512 / 8192, "linear"
    c.optim.args = ConfigDict(
        {"weight_decay": 1e-4, "momentum": 0.9, "nesterov": True, "clip_norm": 0.0}
    )
    c.optim.schedule.name = "step"
    c.optim.schedule.args = ConfigDict(
        {"every": 30, "rate": 0.1, "warmup_epochs": 0, "warmup_lr": 0.0}
    )
    c.log.every = 100
    if variant["profile"] == "paper":
        variants.as_published(c)
    return c
