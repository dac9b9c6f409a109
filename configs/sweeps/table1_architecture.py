"""Table 1 of the Light Recipe: three architectures under the canonical recipe.

On ImageNet-100, each adversarially trained at eps 4/255, with a benign twin.
"""

from robustvit.sweep import Point, Sweep

CONFIG = "../imagenet_canonical.py:{},{},imagenet100"


def get_sweep() -> Sweep:
    """Six points."""
    twins = {"": "adversarial", "-benign": "standard"}
    return Sweep(
        {
            model + ending: Point(CONFIG.format(model, objective))
            for model in ("deit_s", "cait_s12", "s12")
            for ending, objective in twins.items()
        }
    )
