"""What all configs share: every key there is, with its default and its meaning.

A config file is a function `get_config(arg)` that starts from `default()` and changes
what its recipe changes. `robustvit config --config FILE` prints the result.
"""

from ml_collections import ConfigDict


def default() -> ConfigDict:
    """Every key; the values are those of the Light Recipe (arXiv:2209.07399)."""
    c = ConfigDict()
    c.seed = 42
    c.epochs = 100
    c.cooldown_epochs = 10  # more epochs at the lowest rate, after the schedule
    c.trainable = (".*",)  # parameters to train, as patterns of their paths

    c.init_from = ""  # a run's folder, a weight file, or hf:timm/...; empty: afresh
    c.init_new_head = False  # needed where the number of classes differs

    c.model = ConfigDict({"name": "xcit_small_12_p16_224"})
    c.model.args = ConfigDict(
        {
            "num_classes": 0,  # 0: as many as the dataset has
            "drop_path": 0.05,
            "mean": (),  # input normalisation, inside the model; empty: its own
            "std": (),
            "bn_group": 64,  # examples that share batch statistics; 0: the whole batch
            "remat": False,  # recompute blocks in the backward pass: slower, smaller
            "dtype": "float32",  # or bfloat16
        }
    )

    c.data = ConfigDict()
    c.data.name = "digits"  # digits, imagenet100, folder:<path>, or any TFDS name
    c.data.dir = ""  # where TFDS datasets lie; empty: TFDS' own default
    c.data.train_split = "train[:90%]"
    c.data.val_split = "train[90%:]"  # chooses the best checkpoint
    c.data.test_split = "test"  # only for the report
    c.data.image_size = 32
    c.data.batch_size = 512  # of all devices together
    c.data.crop_pct = 1.0  # evaluation: resize to image_size / crop_pct, then crop
    c.data.on_error = "raise"  # what a corrupt image does: raise or skip
    c.data.num_threads = 0  # of the input pipeline; 0: one per core
    c.data.transform = ConfigDict({"name": "cifar", "args": ConfigDict()})
    # After the crop and the flip; replaces colour jitter. RandAugment in timm's words,
    # rand-m9-mstd0.5-inc1, or 3-augment (DeiT III); empty: none.
    c.data.policy = ""
    c.data.repeats = 1  # views of an image in a batch: itself, then augmented ones
    # Other images in the same batches, of the same classes: ratio is their share.
    c.data.mix = ConfigDict({"name": "", "split": "train", "ratio": 0.5})
    # On the device, after the transform of the host:
    c.data.augment = ConfigDict(
        {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "erasing": 0.0}
    )
    # Beta parameters, 0: never; one draw for a batch. Makes targets soft.
    c.data.mixing = ConfigDict({"mixup": 0.0, "cutmix": 0.0, "prob": 1.0})
    c.data.mixing.switch_prob = 0.5  # of CutMix, where both are on
    c.data.mixing.label_smoothing = 0.1  # in place of the objective's

    c.threat = ConfigDict({"norm": "linf", "eps": "8/255"})
    c.threat.schedule = ConfigDict(
        {"name": "linear", "warmup_epochs": 10, "zero_epochs": 0}
    )
    c.attack = ConfigDict({"name": "pgd"})
    # step_size: like eps; "auto" is 1.5 eps / steps with the eps at the end
    c.attack.args = ConfigDict({"steps": 1, "step_size": "auto", "random_start": True})
    c.objective = ConfigDict({"name": "adversarial"})
    c.objective.args = ConfigDict(
        {
            "label_smoothing": 0.1,
            "attack_loss": "untargeted",
            "attack_bn": "eval",  # train_update: as published
            "clean_forward": "none",  # metrics, update: costs a forward pass
        }
    )

    c.optim = ConfigDict({"name": "adamw", "lr": 5e-4, "ema_decay": 0.0})
    c.optim.lr_scaling = "none"  # linear or sqrt: lr is then meant for 512 images
    c.optim.accumulate = 1  # steps whose gradients make one update
    c.optim.args = ConfigDict({"weight_decay": 0.5, "clip_norm": 0.0})
    c.optim.schedule = ConfigDict({"name": "cosine"})
    c.optim.schedule.by = "epoch"  # or step: the rate changes at every step
    c.optim.schedule.args = ConfigDict(
        {"warmup_epochs": 10, "warmup_lr": 1e-6, "min_lr": 1e-5}
    )

    # Every so many steps (0: never; 50: 1 % dearer) looks whether the attack works.
    c.watchdog = ConfigDict({"every": 0, "steps": 10, "gap": 0.2})
    c.watchdog.action = "warn"  # or rollback: to the last sound checkpoint, with
    c.watchdog.shrink = 0.5  # the attack's step size times this

    c.report = ConfigDict({"steps": 20, "restarts": 1})  # PGD at the end of training
    c.checkpoint = ConfigDict(
        {"every": 1000, "keep": 2, "best_metric": "val/robust_accuracy"}
    )
    c.checkpoint.patience = 0  # stops after so many epochs without a better; 0: off
    c.log = ConfigDict({"every": 20, "tensorboard": False, "wandb_project": ""})
    return c
