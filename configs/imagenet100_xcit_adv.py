"""XCiT-N12 on a hundred classes of ImageNet: where the Light Recipe's ablations ran.

Paper: Debenedetti, Sehwag, Mittal 2023, arXiv:2209.07399, tables 2 to 4;
`xcit-nano-adv-training.yaml` and `xcit-nano.yaml`. The grids are in configs/sweeps.

    robustvit train --config configs/imagenet100_xcit_adv.py --workdir runs/nano

Variants: n12, s12 (the model); adversarial, standard; light, heavy (augmentation);
repo, thesis; paper. `heavy` is RandAugment, MixUp, CutMix and erasing. Where the
repository and the thesis differ, `repo` is the default:
    rates: 10 epochs of warm-up from 1e-6, then down to 1e-5; thesis: 5 from 5e-6, 5e-5
    standard, light: has MixUp 0.8; thesis: none

The batch is 1024 (128 on each of 8 cores) at learning rate 5e-4. Weight decay is 0.05;
the ablation of table 4 found 0.5, which the ImageNet recipe has.

Published clean accuracy and robust accuracy (APGD-CE, 5 restarts, eps 4):
    adversarial 67.16 / 39.30, and 68.78 / 42.02 with weight decay 0.5
    adversarial, heavy 56.10 / 34.88; standard 76.36 clean
"""

from ml_collections import ConfigDict

from configs import common, variants


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe; `arg` as in "standard" or "n12,heavy"."""
    variant = variants.pick(
        arg,
        model=("n12", "s12"),
        objective=("adversarial", "standard"),
        augmentation=("light", "heavy"),
        numbers=("repo", "thesis"),
        profile=("", "paper"),
    )
    thesis = variant["numbers"] == "thesis"
    c = common.default()
    c.model.name = f"xcit_{variants.XCIT[variant['model']]}_p16_224"
    c.model.args.drop_path = 0.0
    c.model.args.bn_group = 128
    variants.imagenet(c, "imagenet100")
    variants.normalize(c, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    variants.jitter(c, 0.4)
    c.data.batch_size = 1024
    c.threat.eps = "4/255"
    c.threat.schedule.warmup_epochs = 20
    c.optim.args.weight_decay = 0.05
    if thesis:
        variants.thesis_rates(c)
    if variant["augmentation"] == "heavy":
        variants.heavy(c)
    if variant["objective"] == "standard":
        variants.standard(c)
        if not thesis:
            c.data.mixing.mixup = 0.8
    if variant["profile"] == "paper":
        variants.as_published(c)
    return c
