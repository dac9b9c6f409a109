"""Adversarial training from clean weights, long and with heavy augmentation.

Paper: Singh, Croce, Hein 2023, Revisiting Adversarial Training for ImageNet,
arXiv:2303.01870, on ImageNet at eps 4/255: with a good start, a long schedule, averaged
weights and two attack steps, the heavy augmentation that hurts the Light Recipe helps.

    robustvit train --config configs/imagenet_revisiting_at.py:vit_s --workdir runs/vit

Variants: convnext_t, convnext_s, convnext_b, convnext_l, with _cvst for a convolutional
stem; vit_s, vit_b, vit_m_cvst, and with _cvst the other two; e300, e50 (the epochs).
Isotropic ConvNeXts are not among `robustvit models`. Weights to start from come from
timm (pip install 'robustvit[hub]'), for _cvst from `init_from`, a run or a file: its
default, runs/clean, is a clean training of the same model.

Not as published: LayerNorm and LayerScale of ConvNeXt are not decayed;
warm-up does not shift the cosine; weights of timm keep their input normalisation. The
batch is 640, 80 on each of 8 devices; the paper's number of devices is not known here.

Published clean accuracy and robust accuracy (AutoAttack, 5,000 images):
    ViT-S 69.20 / 44.00, ViT-B 73.30 / 50.00
    with CvSt: S 72.50 / 48.10, M 72.40 / 48.80, B 76.30 / 54.70
    ConvNeXt-T 72.40 / 48.60, ConvNeXt-B 75.60 / 54.30
    with CvSt: T 72.70 / 49.50, S 74.10 / 52.40, B 75.90 / 56.10, L 77.00 / 57.70
"""

from ml_collections import ConfigDict

from configs import common, variants

CLEAN = "runs/clean"
MODELS = {  # the model, and where its clean weights are
    "vit_s": ("deit_small_patch16_224", "hf:timm/deit_small_patch16_224.fb_in1k"),
    "vit_b": ("deit_base_patch16_224", "hf:timm/deit_base_patch16_224.fb_in1k"),
    "vit_s_cvst": ("vit_small_cvst", CLEAN),
    "vit_m_cvst": ("vit_medium_cvst", CLEAN),
    "vit_b_cvst": ("vit_base_cvst", CLEAN),
    "convnext_t": ("convnext_tiny", "hf:timm/convnext_tiny.fb_in1k"),
    "convnext_s": ("convnext_small", "hf:timm/convnext_small.fb_in1k"),
    "convnext_b": ("convnext_base", "hf:timm/convnext_base.fb_in1k"),
    "convnext_l": ("convnext_large", "hf:timm/convnext_large.fb_in1k"),
    "convnext_t_cvst": ("convnext_tiny_cvst", CLEAN),
    "convnext_s_cvst": ("convnext_small_cvst", CLEAN),
    "convnext_b_cvst": ("convnext_base_cvst", CLEAN),
    "convnext_l_cvst": ("convnext_large_cvst", CLEAN),
}


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe; `arg` as in "convnext_t,e50"."""
    variant = variants.pick(arg, model=tuple(MODELS), length=("e300", "e50"))
    long = variant["length"] == "e300"
    c = common.default()
    c.epochs, c.cooldown_epochs = 300 if long else 50, 0
    c.model.name, c.init_from = MODELS[variant["model"]]
    c.model.args.drop_path = 0.0
    variants.imagenet(c)
    variants.heavy(c)
    c.data.crop_pct = 0.875
    c.data.batch_size, c.model.args.bn_group = 640, 0
    c.threat.eps = "4/255"
    c.threat.schedule.name = "constant"
    c.attack.name = "apgd"
    c.attack.args.steps, c.attack.args.random_start = 2, False
    c.objective.args.attack_loss = "soft"
    c.optim.lr, c.optim.ema_decay = 1e-3, 0.9999
    c.optim.args = ConfigDict(
        {"weight_decay": 0.05, "b1": 0.9, "b2": 0.95, "clip_norm": 0.0}
    )
    c.optim.schedule.by = "step"
    c.optim.schedule.args = ConfigDict(
        {"warmup_epochs": 20 if long else 10, "warmup_lr": 1e-7, "min_lr": 5e-6}
    )
    c.log.every = 100
    return c
