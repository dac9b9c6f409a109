"""Table 3 of the Light Recipe: which augmentation hurts adversarial training.

All 16 combinations of MixUp, CutMix, RandAugment and random erasing (M, C, A, R in the
names), each with a benign twin: XCiT-N12 on ImageNet-100, weight decay 0.05.
"""

from robustvit.sweep import Sweep, grid

JITTER = {f"data.augment.{x}": 0.4 for x in ("brightness", "contrast", "saturation")}
NO_JITTER = dict.fromkeys(JITTER, 0.0)  # RandAugment takes its place


def get_sweep() -> Sweep:
    """32 points."""
    axes = (
        {"mixup": {"data.mixing.mixup": 0.8}, "": {"data.mixing.mixup": 0.0}},
        {"cutmix": {"data.mixing.cutmix": 1.0}, "": {"data.mixing.cutmix": 0.0}},
        {
            "randaugment": {"data.policy": "rand-m9-mstd0.5-inc1", **NO_JITTER},
            "": {"data.policy": "", **JITTER},
        },
        {"erasing": {"data.augment.erasing": 0.25}, "": {"data.augment.erasing": 0.0}},
    )
    points = {}
    for ending, variant in {"": "adversarial", "-benign": "standard"}.items():
        combinations = grid(f"../imagenet100_xcit_adv.py:{variant}", *axes)
        points |= {(name or "none") + ending: p for name, p in combinations.items()}
    return Sweep(points)
