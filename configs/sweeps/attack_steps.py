"""Steps of the training attack: XCiT-N12 on ImageNet-100, heavy augmentation.

The step size follows, 1.5 eps / steps. Not in the paper; the authors' repository has
the sweep, as `attack-steps.yaml`.
"""

from robustvit.sweep import Sweep, grid


def get_sweep() -> Sweep:
    """Three points."""
    steps = {f"steps{n}": {"attack.args.steps": n} for n in (1, 5, 10)}
    return Sweep(grid("../imagenet100_xcit_adv.py:heavy", steps))
