"""Table 5 of the Light Recipe: from DeiT's recipe to the Light one, a part at a time.

On ImageNet at eps 4/255, robust accuracy by AutoAttack. The first point has the
canonical recipe without repeated augmentation, and eps at its full size from the start.
"""

from robustvit.sweep import Point, Sweep

CANONICAL = "../imagenet_canonical.py:{},adversarial"
UNREPEATED = {"data.repeats": 1, "data.batch_size": 512, "model.args.bn_group": 64}
AT_ONCE = UNREPEATED | {"threat.schedule.warmup_epochs": 0}


def get_sweep() -> Sweep:
    """Five points."""
    decay = {"optim.args.weight_decay": 0.05}
    return Sweep(
        {
            "deit": Point(CANONICAL.format("deit_s"), AT_ONCE),
            "xca": Point(CANONICAL.format("s12"), AT_ONCE),
            "eps-warmup": Point(CANONICAL.format("s12"), UNREPEATED),
            "light-augmentation": Point("../imagenet_xcit_adv.py:s12,eps4", decay),
            "weight-decay": Point("../imagenet_xcit_adv.py:s12,eps4"),
        }
    )
