"""Fine-tuning of robust ImageNet models on Caltech-101 and Flowers at 224 pixels.

Paper: Debenedetti, Sehwag, Mittal 2023, arXiv:2209.07399, table 7;
`xcit-adv-finetuning-hi-res.yaml` and `xcit-finetuning-hi-res.yaml`.

    robustvit train --config configs/imagenet_xcit_adv.py:eps8 --workdir runs/s12_eps8
    robustvit train --config configs/finetune_hires.py:caltech101 --workdir runs/caltech

Variants: caltech101, flowers102; adversarial, standard; s12, resnet50 (the model);
repo, thesis; paper. It starts from `init_from`, a run or a weight file, which is
runs/s12_eps8 (runs/s12_standard, runs/resnet50_eps8, runs/resnet50_standard) unless
given. Where the repository and the thesis differ, `repo` is the default:
    eps: 8/255; thesis: prints 8/288

Published clean accuracy and robust accuracy (AutoAttack) of S12 and ResNet-50:
    repository: Caltech S12 87.59 / 61.74, ResNet-50 81.38 / 34.49
    repository: Flowers S12 82.86 / 47.91, ResNet-50 74.51 / 32.75
    thesis: Caltech S12 89.66 / 49.66, ResNet-50 83.22 / 33.90
    thesis: Flowers S12 85.01 / 29.37, ResNet-50 70.61 / 21.52
    standard, clean: Caltech 90.42, ResNet-50 86.97; Flowers 89.08, ResNet-50 82.30
"""

from ml_collections import ConfigDict

from configs import common, variants

MODELS = {"s12": "xcit_small_12_p16_224", "resnet50": "resnet50_gelu"}
DATASETS = {"caltech101": "caltech101", "flowers102": "oxford_flowers102"}


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe; `arg` as in "flowers102,standard"."""
    variant = variants.pick(
        arg,
        dataset=("caltech101", "flowers102"),
        objective=("adversarial", "standard"),
        model=("s12", "resnet50"),
        numbers=("repo", "thesis"),
        profile=("", "paper"),
    )
    plain = variant["objective"] == "standard"
    c = common.default()
    c.epochs, c.cooldown_epochs = 20, 10
    c.model.name = MODELS[variant["model"]]
    c.init_from = f"runs/{variant['model']}_{'standard' if plain else 'eps8'}"
    c.init_new_head = True
    variants.imagenet(c, DATASETS[variant["dataset"]])
    c.data.train_split, c.data.val_split = "train[:90%]", "train[90%:]"
    c.data.test_split = "test"
    if variant["dataset"] == "flowers102":
        c.data.train_split, c.data.val_split = "train", "validation"
    c.data.crop_pct = 0.95 if variant["model"] == "resnet50" else 1.0
    variants.normalize(c, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    variants.jitter(c, 0.4)
    c.threat.eps = "8/288" if variant["numbers"] == "thesis" else "8/255"
    c.threat.schedule.name = "constant"
    c.optim.lr = 5e-5
    c.optim.schedule.args.warmup_epochs = 5
    c.optim.schedule.args.min_lr = 5e-6
    if plain:
        variants.standard(c)
        variants.heavy(c)
        c.optim.args.weight_decay = 0.05
    if variant["profile"] == "paper":
        variants.as_published(c)
    return c
