"""Learning rate, weight decay and beta of TRADES, fine-tuning XCiT-S12 on CIFAR-10.

The authors' sweep on TPUs has four rates, random erasing and no colour jitter; the one
on GPUs (`gpu` in the names) two of the rates and the recipe's own augmentation. Rates
are not scaled with the batch. Both start from runs/s12_eps4, or --config.init_from.
"""

from robustvit.sweep import Sweep, grid

ERASING = {"data.augment.erasing": 0.2} | {
    f"data.augment.{x}": 0.0 for x in ("brightness", "contrast", "saturation")
}


def get_sweep() -> Sweep:
    """36 points."""
    rates = {
        f"lr{lr}": {"optim.lr": lr, "optim.lr_scaling": "none"}
        for lr in (5e-5, 1e-4, 5e-4, 1e-3)
    }
    rest = (
        {f"wd{wd}": {"optim.args.weight_decay": wd} for wd in (0.05, 0.5, 1.0)},
        {f"beta{beta}": {"objective.args.beta": float(beta)} for beta in (6, 12)},
    )
    two = {name: rates[name] for name in ("lr5e-05", "lr0.0001")}
    config = "../cifar_finetune.py:s12,cifar10"
    return Sweep(
        grid(config, rates, *rest, {"": ERASING})
        | grid(config, {"gpu": {}}, two, *rest)
    )
