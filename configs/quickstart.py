"""Quick start: a small XCiT, adversarially trained on real handwritten digits.

1,797 scans of 8x8 pixels that ship with scikit-learn, enlarged to 32x32; no download.
Minutes on two CPU cores.

    robustvit train --config configs/quickstart.py --workdir runs/quickstart

Variants: adversarial; standard, the same model without an attack, to compare with.
"""

from ml_collections import ConfigDict

from configs import common, variants


def get_config(arg: str | None = None) -> ConfigDict:
    """The quick start; `arg` is "adversarial" or "standard"."""
    variant = variants.pick(arg, objective=("adversarial", "standard"))
    c = common.default()
    c.epochs, c.cooldown_epochs = 28, 2
    c.model.name = "xcit_nano_12_p8_32"
    c.model.args.update({"dim": 64, "depth": 4, "num_heads": 4, "drop_path": 0.0})
    c.model.args.bn_group = 0
    c.data.train_split = "train[:90%]"
    c.data.val_split = "train[90%:]"
    c.data.batch_size = 64
    c.data.transform.name = "digits"
    c.threat.eps = "32/255"
    c.threat.schedule.warmup_epochs = 8
    c.optim.lr = 2e-3
    c.optim.args.weight_decay = 0.05
    c.optim.schedule.args.warmup_epochs = 3
    c.objective.args.label_smoothing = 0.0
    c.attack.args.steps = 2
    if variant["objective"] == "standard":
        variants.standard(c)
    return c
