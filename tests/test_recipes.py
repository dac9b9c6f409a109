"""The recipes' numbers at real sizes: rates, eps, steps of an epoch, and the grids.

Datasets are not needed: a schedule follows from the config, and steps from the number
of examples, which the table has. Rates were computed from the published formula apart
from this code.
"""

from pathlib import Path

import pytest

from robustvit import recipe, runs
from robustvit.attacks import light_step_size
from robustvit.config_files import load_config
from robustvit.sweep import tasks
from robustvit.threat import parse_eps
from robustvit.training import schedules
from robustvit.workdir import flatten
from tests.small_run import REPO

CONFIGS = REPO / "configs"
IMAGENET, CIFAR = 1_281_167, 50_000
IMAGENET100 = IMAGENET // 10  # nearly; its classes do not have the same size
CALTECH, FLOWERS = 3_060, 1_020
RA = "rand-m9-mstd0.5-inc1"
LIGHT = {"data.policy": "", "data.mixing.mixup": 0.0, "data.mixing.cutmix": 0.0,
         "data.augment.erasing": 0.0, "data.augment.contrast": 0.4,
         "data.repeats": 1}  # fmt: skip
HEAVY = {"data.policy": RA, "data.mixing.mixup": 0.8, "data.mixing.cutmix": 1.0,
         "data.mixing.switch_prob": 0.5, "data.mixing.prob": 1.0,
         "data.mixing.label_smoothing": 0.1, "data.augment.erasing": 0.25,
         "data.augment.contrast": 0.0}  # fmt: skip
ADVERSARIAL = {"objective.name": "adversarial", "objective.args.label_smoothing": 0.1}
STANDARD = {"objective.name": "standard", "objective.args.label_smoothing": 0.1,
            "checkpoint.best_metric": "val/clean_accuracy"}  # fmt: skip
TRADES = {"objective.name": "trades", "objective.args.beta": 6.0,
          "objective.args.label_smoothing": 0.0, "attack.args.steps": 10}  # fmt: skip
RATES = {0: 1e-6, 1: 5.09e-5, 9: 4.501e-4, 10: 4.88009e-4, 50: 2.55e-4, 109: 1e-5}
SLOW = {0: 5e-6, 1: 1.04e-4, 4: 4.01e-4, 5: 4.9723e-4, 50: 2.75e-4, 109: 5e-5}
CANONICAL = {0: 1e-6, 1: 1.008e-4, 5: 4.96984e-4, 50: 2.55e-4, 109: 1e-5}
HIRES = {0: 1e-6, 1: 1.08e-5, 4: 4.02e-5, 5: 4.34099e-5, 10: 2.75e-5, 29: 5e-6}
RAMP10 = {0: 0.0, 1: 0.4, 5: 2.0, 9: 3.6, 10: 4.0, 109: 4.0}
AT_ONCE = {0: 8.0, 1: 8.0, 21: 8.0}

# spec -> (config values, rate by epoch, eps x 255 by epoch, examples, steps an epoch)
ROWS = {
    "imagenet_xcit_adv.py:s12,paper": (
        {**LIGHT, **ADVERSARIAL, "model.name": "xcit_small_12_p16_224",
         "attack.args.steps": 1, "optim.args.weight_decay": 0.5,
         "model.args.drop_path": 0.05, "data.val_split": "validation"},
        RATES, RAMP10, IMAGENET, 2502,
    ),
    "imagenet_xcit_adv.py:l12": (
        {"model.name": "xcit_large_12_p16_224", "attack.args.steps": 2},
        RATES, RAMP10, IMAGENET, 2502,
    ),
    "imagenet_xcit_adv.py:l12,thesis": (
        {"attack.args.steps": 1}, SLOW, RAMP10, IMAGENET, 2502,
    ),
    "imagenet_xcit_adv.py:s12,eps8": (
        {"attack.args.steps": 2, "threat.eps": "8/255"},
        RATES, {0: 0.0, 1: 0.8, 10: 8.0, 109: 8.0}, IMAGENET, 2502,
    ),
    "imagenet_xcit_adv.py:m12,pod,paper": (
        {"data.batch_size": 16384, "model.args.bn_group": 256,
         "objective.args.attack_bn": "train_update"},
        {0: 1e-6, 1: 0.0016009, 9: 0.0144001, 10: 0.0156087, 50: 0.008005, 109: 1e-5},
        RAMP10, IMAGENET, 78,
    ),
    "imagenet_xcit_adv.py:l12,pod": (
        {"data.batch_size": 8192, "model.args.bn_group": 128},
        {1: 0.0008009, 10: 0.00780447, 109: 1e-5}, RAMP10, IMAGENET, 156,
    ),
    "imagenet100_xcit_adv.py": (
        {**LIGHT, **ADVERSARIAL, "model.name": "xcit_nano_12_p16_224",
         "data.name": "imagenet100", "model.args.drop_path": 0.0,
         "model.args.bn_group": 128, "optim.args.weight_decay": 0.05,
         "attack.args.steps": 1},
        RATES, {0: 0.0, 1: 0.2, 10: 2.0, 19: 3.8, 20: 4.0}, IMAGENET100, 125,
    ),
    "imagenet100_xcit_adv.py:standard": (
        {**LIGHT, **STANDARD, "data.mixing.mixup": 0.8}, RATES, {}, IMAGENET100, 125,
    ),
    "imagenet100_xcit_adv.py:standard,thesis": (
        {**LIGHT, **STANDARD}, SLOW, {}, IMAGENET100, 125,
    ),
    "imagenet100_xcit_adv.py:heavy,s12": (
        {**HEAVY, "model.name": "xcit_small_12_p16_224"}, RATES, {}, IMAGENET100, 125,
    ),
    "imagenet_canonical.py:s12": (
        {**HEAVY, **STANDARD, "data.repeats": 3, "data.batch_size": 1536,
         "model.args.bn_group": 192, "optim.args.weight_decay": 0.05,
         "model.args.drop_path": 0.05},
        CANONICAL, {}, 3 * IMAGENET, 2502,
    ),
    "imagenet_canonical.py:cait_s12,adversarial,imagenet100": (
        {**HEAVY, **ADVERSARIAL, "model.name": "cait_s12_224", "data.repeats": 3,
         "model.args.layer_scale": 1.0, "data.name": "imagenet100"},
        CANONICAL, RAMP10, 3 * IMAGENET100, 250,
    ),
    "imagenet_canonical.py:cait_s12,thesis": (
        {**HEAVY, "data.repeats": 1, "model.args.layer_scale": 0.1},
        SLOW, {}, IMAGENET, 2502,
    ),
    "imagenet_canonical.py:deit_s,adversarial,thesis,imagenet100": (
        {"model.name": "deit_small_patch16_224", "data.crop_pct": 0.9,
         "data.repeats": 3}, SLOW, RAMP10, 3 * IMAGENET100, 250,
    ),
    "imagenet_resnet50_adv.py": (
        {**ADVERSARIAL, "model.name": "resnet50_gelu", "optim.name": "sgd",
         "optim.args.nesterov": True, "optim.args.momentum": 0.9,
         "optim.args.weight_decay": 1e-4, "data.augment.contrast": 0.0,
         "data.policy": "", "model.args.mean": (0.5, 0.5, 0.5),
         "model.args.drop_path": 0.0, "cooldown_epochs": 0, "data.crop_pct": 0.95},
        {0: 3.2, 4: 3.2, 29: 3.2, 30: 0.32, 60: 0.032, 99: 0.0032},
        RAMP10, IMAGENET, 156,
    ),
    "imagenet_resnet50_adv.py:eps8": (
        {"attack.args.steps": 2}, {}, {10: 8.0}, IMAGENET, 156,
    ),
    "finetune_hires.py:caltech101,paper": (
        {**LIGHT, **ADVERSARIAL, "optim.args.weight_decay": 0.5, "epochs": 20,
         "cooldown_epochs": 10, "attack.args.steps": 1, "data.val_split": "test",
         "model.args.mean": (0.5, 0.5, 0.5), "init_new_head": True,
         "data.image_size": 224},
        HIRES, AT_ONCE, CALTECH, 5,
    ),
    "finetune_hires.py:flowers102,thesis": (
        {"data.name": "oxford_flowers102", "data.val_split": "validation"},
        HIRES, {0: 8 * 255 / 288}, FLOWERS, 1,
    ),
    "finetune_hires.py:flowers102,standard": (
        {**HEAVY, **STANDARD, "optim.args.weight_decay": 0.05}, HIRES, {}, FLOWERS, 1,
    ),
    "cifar_finetune.py:paper": (
        {**TRADES, "epochs": 20, "cooldown_epochs": 2, "optim.args.weight_decay": 0.5,
         "data.augment.contrast": 0.25, "data.transform.name": "cifar",
         "data.transform.args.degrees": 2.0, "data.transform.args.padding": 4,
         "model.args.mean": (0.4914, 0.4822, 0.4465), "model.args.bn_group": 128},
        {0: 1e-6, 1: 5.73685e-5, 4: 2.26474e-4, 5: 2.42154e-4, 10: 1.43921e-4,
         21: 5e-6}, AT_ONCE, CIFAR, 48,
    ),
    "cifar_finetune.py:l12,cifar100,thesis": (
        {**TRADES, "model.name": "xcit_large_12_p4_32", "data.augment.contrast": 0.0,
         "data.transform.args.scale": (0.8, 1.2), "data.transform.name": "imagenet",
         "model.args.std": (0.2675, 0.2565, 0.2761)},
        {1: 4.08e-5, 5: 1.71443e-4, 10: 1.025e-4, 21: 5e-6}, AT_ONCE, CIFAR, 48,
    ),
    "cifar_finetune.py:standard": (
        {**LIGHT, **STANDARD, "epochs": 30, "cooldown_epochs": 10,
         "optim.args.weight_decay": 0.5, "model.args.drop_path": 0.05},
        {0: 1e-6, 1: 1.08e-5, 5: 4.69856e-5, 15: 2.75e-5, 39: 5e-6}, {}, CIFAR, 97,
    ),
    "cifar10_xcit_adv.py": (
        {**TRADES, "data.mix.name": "", "data.augment.erasing": 0.2},
        {0: 1e-6, 1: 4.08e-5, 5: 1.988e-4, 50: 1.025e-4, 101: 5e-6}, AT_ONCE, CIFAR, 97,
    ),
    # Half of a batch are real images: 256 of them make a step.
    "cifar10_xcit_adv.py:synthetic": (
        {**TRADES, "data.mix.ratio": 0.5}, {101: 5e-6}, AT_ONCE, 2 * CIFAR, 195,
    ),
    "cifar10_xcit_adv.py:thesis": (
        {"epochs": 300, "cooldown_epochs": 2},
        {5: 1.99866e-4, 150: 1.025e-4, 301: 5e-6}, AT_ONCE, CIFAR, 97,
    ),
    "imagenet_revisiting_at.py": (
        {**HEAVY, "attack.args.steps": 2, "attack.args.random_start": False,
         "attack.name": "apgd", "objective.args.attack_loss": "soft",
         "optim.ema_decay": 0.9999, "optim.args.b2": 0.95, "data.crop_pct": 0.875,
         "optim.args.weight_decay": 0.05, "optim.schedule.by": "step",
         "model.name": "deit_small_patch16_224"},
        {0: 1e-7, 1: 5.0095e-5, 19: 9.50005e-4, 20: 9.89128e-4, 150: 5.025e-4},
        {0: 4.0, 299: 4.0}, IMAGENET, 2001,
    ),
    "imagenet_revisiting_at.py:vit_m_cvst": (
        {"model.name": "vit_medium_cvst", "init_from": "runs/clean"},
        {20: 9.89128e-4}, {}, IMAGENET, 2001,
    ),
    "imagenet_revisiting_at.py:convnext_s_cvst,e50": (
        {"model.name": "convnext_small_cvst", "init_from": "runs/clean"},
        {9: 9.0001e-4, 10: 9.04986e-4, 25: 5.025e-4, 49: 5.9817e-6}, {}, IMAGENET, 2001,
    ),
}  # fmt: skip


@pytest.mark.parametrize("spec", ROWS)
def test_row(spec):
    values, rates, eps, examples, steps = ROWS[spec]
    c = load_config(str(CONFIGS / spec))
    flat = flatten(c.to_dict())
    assert {key: flat.get(key) for key in values} == values
    lr_at, eps_at = recipe.build_lr(c), eps_schedule(c)
    assert {t: lr_at(t) for t in rates} == pytest.approx(rates, rel=1e-5)
    assert {t: 255 * eps_at(t) for t in eps} == pytest.approx(eps)
    assert examples // c.data.batch_size == steps
    assert c.data.batch_size % (c.model.args.bn_group or 1) == 0


def eps_schedule(c):
    ramp = {k: v for k, v in c.threat.schedule.items() if k != "name"}
    final = parse_eps(c.threat.eps, c.threat.norm)
    return schedules.eps_schedule(c.threat.schedule.name, final, **ramp)


@pytest.mark.parametrize("spec", ROWS)
def test_every_model_is_built_and_its_optimizer(spec):
    """Their arguments, that is; initialising them takes longer than it says."""
    c = load_config(str(CONFIGS / spec))
    with c.unlocked():
        c.model.args.num_classes = 10
        if "bn_group" not in runs._model_fields(c):
            c.model.args.bn_group = 0
    assert runs.build_model(c).num_classes == 10
    recipe.OPTIMIZERS[c.optim.name](lambda _: 0.1, **c.optim.args)


@pytest.mark.parametrize(
    ("spec", "classes", "steps", "epochs"),
    [
        ("finetune_hires.py:caltech101,paper", 102, 5, 30),
        ("cifar_finetune.py", 10, 47, 22),
    ],
)
def test_built_on_the_real_dataset(spec, classes, steps, epochs, tfds_dir):
    """Caltech-101 has a class for the background as well."""
    run = runs.build(
        load_config(str(CONFIGS / spec), [f"--config.data.dir={tfds_dir}"])
    )
    assert run.model.num_classes == classes
    assert (run.data.steps_per_epoch, run.settings.epochs) == (steps, epochs)


def points(name):
    path = CONFIGS / "sweeps" / f"{name}.py"
    return {task.name: task.config() for task in tasks(path, Path("runs"))}


# sweep -> (points, {key: values that all points together have})
GRIDS = {
    "table1_architecture": (6, {
        "model.name": {"deit_small_patch16_224", "cait_s12_224",
                       "xcit_small_12_p16_224"},
        "objective.name": {"adversarial", "standard"}, "data.name": {"imagenet100"},
        "data.policy": {RA}}),
    "table2_warmup": (5, {
        "threat.schedule.warmup_epochs": {0, 5, 10, 20, 30}, "data.policy": {RA},
        "data.mixing.cutmix": {1.0}, "optim.args.weight_decay": {0.05}}),
    "table3_augmentation": (32, {
        "data.mixing.mixup": {0.0, 0.8}, "data.mixing.cutmix": {0.0, 1.0},
        "data.policy": {"", RA}, "data.augment.erasing": {0.0, 0.25},
        "objective.name": {"adversarial", "standard"}}),
    "table4_weight_decay": (14, {
        "optim.args.weight_decay": {0.0, 0.001, 0.01, 0.05, 0.1, 0.5, 1.0},
        "objective.name": {"adversarial", "standard"}, "data.policy": {""}}),
    "attack_steps": (3, {"attack.args.steps": {1, 5, 10}, "data.policy": {RA}}),
    "cifar_finetune": (36, {
        "optim.lr": {5e-5, 1e-4, 5e-4, 1e-3}, "optim.lr_scaling": {"none"},
        "optim.args.weight_decay": {0.05, 0.5, 1.0}, "objective.args.beta": {6.0, 12.0},
        "data.augment.erasing": {0.0, 0.2}}),
    "table5_components": (5, {"data.name": {"imagenet2012"}, "data.repeats": {1},
                              "data.batch_size": {512}}),
    "table7_finetuning": (8, {"data.name": {"caltech101", "oxford_flowers102"},
                              "objective.name": {"adversarial", "standard"}}),
    "table8_cifar10": (3, {"threat.eps": {"8/255"}, "objective.name": {"trades"}}),
}  # fmt: skip


@pytest.mark.parametrize("name", GRIDS)
def test_grid(name):
    count, values = GRIDS[name]
    flats = [flatten(c.to_dict()) for c in points(name).values()]
    assert len(flats) == count
    assert {key: {flat[key] for flat in flats} for key in values} == values
    assert len({str(sorted(flat.items())) for flat in flats}) == count  # all differ


def test_there_is_a_grid_for_every_sweep_file():
    assert {p.stem for p in (CONFIGS / "sweeps").glob("*.py")} == set(GRIDS)


def test_jitter_gives_way_to_randaugment():
    """As in timm, which has either the one or the other."""
    for c in points("table3_augmentation").values():
        assert c.data.augment.contrast == (0.0 if c.data.policy else 0.4)


def test_components_add_up_to_the_recipe():
    found = points("table5_components")
    ramps = [(c.threat.schedule.warmup_epochs, c.optim.args.weight_decay,
              c.data.policy) for c in found.values()]  # fmt: skip
    assert ramps == [(0, 0.05, RA), (0, 0.05, RA), (10, 0.05, RA), (10, 0.05, ""),
                     (10, 0.5, "")]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_step_size_of_attack_steps(steps):
    c = points("attack_steps")[f"steps{steps}"]
    assert c.attack.args.step_size == "auto"  # which is
    assert light_step_size(4 / 255, steps) == pytest.approx(1.5 * 4 / 255 / steps)
