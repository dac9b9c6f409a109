"""Attacks: they climb a loss inside a threat model and know no model.

An entry of ATTACKS takes its numbers and gives a `Maximizer`; adding one is a file and
a line here, and the contract tests then cover it.
"""

from robustvit.attacks.apgd import APGD
from robustvit.attacks.apgd_training import TrainingAPGD, first_step_size
from robustvit.attacks.autoattack import autoattack
from robustvit.attacks.fab import FAB
from robustvit.attacks.label_attack import LabelAttack
from robustvit.attacks.pgd import PGD, fgsm, light_step_size
from robustvit.attacks.square import Square

ATTACKS = {"fgsm": fgsm, "pgd": PGD, "apgd": TrainingAPGD}
# What step_size="auto" means in a config, from eps and the number of steps.
STEP_SIZES = {
    "fgsm": light_step_size,
    "pgd": light_step_size,
    "apgd": first_step_size,
}

__all__ = [
    "APGD",
    "ATTACKS",
    "FAB",
    "PGD",
    "STEP_SIZES",
    "LabelAttack",
    "Square",
    "TrainingAPGD",
    "autoattack",
    "fgsm",
    "first_step_size",
    "light_step_size",
]
