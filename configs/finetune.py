"""Adversarial fine-tuning of any model of the zoo, from weights or from a run.

    robustvit train --config configs/finetune.py:deit3_small_patch16_224,imagenet2012 \
        --workdir runs/deit3 --config.init_from=hf:timm/deit3_small_patch16_224.fb_in1k
    robustvit import-weights --config configs/finetune.py:resnet20,cifar10 \
        --weights resnet20.th --workdir runs/resnet20

The variant is MODEL,DATASET: a name from `robustvit models`, and any dataset that
`data.name` takes. Images get the size that the model was published for, and the
normalisation is the model's own. On another number of classes than the weights have,
add --config.init_new_head=True.

Starting from weights that are good on clean images, then a longer schedule and two
attack steps, is what Singh, Croce and Hein (2023, arXiv:2303.01870) found to work; the
learning rate here is the one for fine-tuning 20 epochs, not theirs for 300.
"""

from ml_collections import ConfigDict

from configs import common
from robustvit import lookup
from robustvit.models.facts import facts

EPS = {"cifar10": "8/255", "cifar100": "8/255", "digits": "32/255"}
TRANSFORMS = {"cifar10": "cifar", "cifar100": "cifar", "digits": "digits"}
TEST_SPLITS = {"imagenet2012": "validation"}


def get_config(arg: str | None = None) -> ConfigDict:
    """Fine-tuning of `arg`, as in "resnet50_gelu,cifar10"."""
    name, _, dataset = (arg or "xcit_small_12_p16_224").partition(",")
    dataset = dataset or "imagenet2012"
    if name not in facts():
        raise ValueError(f"unknown model {name!r}: {lookup.nearest(name, facts())}")
    c = common.default()
    c.model.name = name
    c.data.name = dataset
    c.data.image_size = facts()[name].image_size
    c.data.test_split = TEST_SPLITS.get(dataset, "test")
    c.data.transform.name = TRANSFORMS.get(dataset, "imagenet")
    c.data.batch_size = 256
    c.model.args.drop_path = 0.0
    c.threat.eps = EPS.get(dataset, "4/255")
    c.threat.schedule.warmup_epochs = 5
    c.attack.args.steps = 2
    c.epochs, c.cooldown_epochs = 20, 0
    c.optim.lr = 1e-4
    c.optim.args.weight_decay = 0.05
    c.optim.schedule.args.warmup_epochs = 2
    c.optim.schedule.args.min_lr = 1e-6
    return c
