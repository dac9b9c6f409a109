"""The canonical recipe of XCiT, DeiT and CaiT: what the Light Recipe is lighter than.

Paper: Debenedetti, Sehwag, Mittal 2023, arXiv:2209.07399, tables 1 and 5; `xcit.yaml`
(after El-Nouby et al. 2021, arXiv:2106.09681, with 100 epochs).

    robustvit train --config configs/imagenet_canonical.py:s12 --workdir runs/standard

Variants: s12, m12, l12, deit_s, cait_s12 (the model); standard, adversarial; imagenet,
imagenet100; repo, thesis; paper. Always with RandAugment, MixUp 0.8, CutMix 1.0 and
erasing 0.25, without colour jitter. Where the repository and the thesis differ, `repo`
is the default:
    repeated augmentation: 3 views of an image; thesis: only in table 1 (imagenet100)
    rates: 5 epochs of warm-up from 1e-6, then down to 1e-5; thesis: from 5e-6, 5e-5
    cait_s12: LayerScale starts at 1; thesis: at 0.1

Three views make the batch 1536: 64 images, so 192 views, on each of 8 cores. Without
them it is 512.

Published clean accuracy; on imagenet100 also adversarial at eps 4, clean and APGD-CE:
    ImageNet, 100 epochs: S12 80.36, M12 81.71, L12 82.65
    imagenet100: DeiT-S 67.38, adversarial 62.52 / 33.32
    imagenet100: CaiT-S12 80.28, adversarial 70.20 / 35.84
    imagenet100: XCiT-S12 90.44, adversarial 85.06 / 54.80
"""

from ml_collections import ConfigDict

from configs import common, variants

MODELS = {
    "s12": "xcit_small_12_p16_224",
    "m12": "xcit_medium_12_p16_224",
    "l12": "xcit_large_12_p16_224",
    "deit_s": "deit_small_patch16_224",
    "cait_s12": "cait_s12_224",
}
DATASETS = {"imagenet": "imagenet2012", "imagenet100": "imagenet100"}


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe; `arg` as in "deit_s,adversarial,imagenet100"."""
    variant = variants.pick(
        arg,
        model=("s12", "m12", "l12", "deit_s", "cait_s12"),
        objective=("standard", "adversarial"),
        dataset=("imagenet", "imagenet100"),
        numbers=("repo", "thesis"),
        profile=("", "paper"),
    )
    thesis = variant["numbers"] == "thesis"
    c = common.default()
    c.model.name = MODELS[variant["model"]]
    variants.imagenet(c, DATASETS[variant["dataset"]])
    variants.normalize(c, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    variants.heavy(c)
    c.data.crop_pct = 0.9 if variant["model"] == "deit_s" else 1.0
    c.threat.eps = "4/255"
    c.optim.args.weight_decay = 0.05
    c.optim.schedule.args.warmup_epochs = 5
    if not thesis or variant["dataset"] == "imagenet100":
        c.data.repeats, c.data.batch_size, c.model.args.bn_group = 3, 1536, 192
    if thesis:
        variants.thesis_rates(c)
    if variant["model"] == "cait_s12":
        c.model.args.layer_scale = 0.1 if thesis else 1.0
    if variant["objective"] == "standard":
        variants.standard(c)
    if variant["profile"] == "paper":
        variants.as_published(c)
    return c
