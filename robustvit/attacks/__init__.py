"""Attacks: they climb a loss inside a threat model and know no model.

An entry of ATTACKS takes its numbers and gives a `Maximizer`; adding one is a file and
a line here, and the contract tests then cover it.
"""

from robustvit.attacks.apgd import APGD
from robustvit.attacks.autoattack import autoattack
from robustvit.attacks.fab import FAB
from robustvit.attacks.label_attack import LabelAttack
from robustvit.attacks.pgd import PGD, fgsm, light_step_size
from robustvit.attacks.square import Square

ATTACKS = {"fgsm": fgsm, "pgd": PGD}

__all__ = [
    "APGD",
    "ATTACKS",
    "FAB",
    "PGD",
    "LabelAttack",
    "Square",
    "autoattack",
    "fgsm",
    "light_step_size",
]
