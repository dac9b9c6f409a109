"""Table 7 of the Light Recipe: Caltech-101 and Flowers, from ImageNet models.

Robust and standard fine-tuning of XCiT-S12 and ResNet-50. They start from
runs/{s12,resnet50}_{eps8,standard}, which `configs/finetune_hires.py` explains.
"""

from robustvit.sweep import Point, Sweep

CONFIG = "../finetune_hires.py:{},{},{}"


def get_sweep() -> Sweep:
    """Eight points."""
    twins = {"": "adversarial", "-benign": "standard"}
    return Sweep(
        {
            f"{dataset}-{model}{ending}": Point(
                CONFIG.format(dataset, model, objective)
            )
            for dataset in ("caltech101", "flowers102")
            for model in ("s12", "resnet50")
            for ending, objective in twins.items()
        }
    )
