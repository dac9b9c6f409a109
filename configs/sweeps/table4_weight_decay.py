"""Table 4 of the Light Recipe: weight decay, which adversarial training wants larger.

XCiT-N12 on ImageNet-100 with light augmentation, each with a benign twin (which has
MixUp, as in the repository's `xcit-nano.yaml`).
"""

from robustvit.sweep import Sweep, grid


def get_sweep() -> Sweep:
    """14 points."""
    decays = {
        f"wd{wd}": {"optim.args.weight_decay": wd}
        for wd in (0.0, 0.001, 0.01, 0.05, 0.1, 0.5, 1.0)
    }
    benign = {"benign": {}}
    return Sweep(
        grid("../imagenet100_xcit_adv.py:adversarial", decays)
        | grid("../imagenet100_xcit_adv.py:standard", decays, benign)
    )
