"""Table 2 of the Light Recipe: epochs over which eps grows, under heavy augmentation.

XCiT-N12 on ImageNet-100 with weight decay 0.05.
"""

from robustvit.sweep import Sweep, grid


def get_sweep() -> Sweep:
    """Five points."""
    epochs = (0, 5, 10, 20, 30)
    warmups = {f"warmup{n}": {"threat.schedule.warmup_epochs": n} for n in epochs}
    return Sweep(grid("../imagenet100_xcit_adv.py:heavy", warmups))
