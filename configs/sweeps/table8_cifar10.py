"""Table 8 of the Light Recipe: XCiT-S12 on CIFAR-10, fine-tuned or from scratch.

`finetune` starts from runs/s12_eps4; `synthetic` wants generated images, see
`configs/cifar10_xcit_adv.py`. TRADES at eps 8/255 throughout.
"""

from robustvit.sweep import Point, Sweep


def get_sweep() -> Sweep:
    """Three points."""
    return Sweep(
        {
            "finetune": Point("../cifar_finetune.py:s12,cifar10"),
            "synthetic": Point("../cifar10_xcit_adv.py:s12,synthetic"),
            "scratch": Point("../cifar10_xcit_adv.py:s12"),
        }
    )
