"""AutoAttack: which attacks, in which order.

    attacks = autoattack("standard")          # {"apgd-ce": APGD(...), ...}
    attacks = autoattack(["apgd-ce", "square"])

Every entry works in linf, l2 and l1; what the published budgets make depend on the norm
is left open and filled in when an evaluation begins.

Reference: Croce & Hein 2020, arXiv:2003.01690; l1: Croce & Hein 2021, arXiv:2103.01208.
"""

from __future__ import annotations

from collections.abc import Sequence

from robustvit.attacks.apgd import APGD
from robustvit.attacks.fab import FAB
from robustvit.attacks.square import Square

Parts = dict[str, APGD | FAB | Square]

STANDARD: Parts = {
    "apgd-ce": APGD("cross_entropy"),
    "apgd-t": APGD("targeted_dlr"),
    "fab-t": FAB(targets=9),
    "square": Square(),
}
PLUS: Parts = {
    "apgd-ce": APGD("cross_entropy", restarts=5),
    "apgd-dlr": APGD("dlr", restarts=5),
    "fab": FAB(targets=0, restarts=5),
    "square": Square(),
    "apgd-t": APGD("targeted_dlr", targets=9),
    "fab-t": FAB(targets=9),
}
RAND: Parts = {
    "apgd-ce": APGD("cross_entropy", restarts=1, samples=20),
    "apgd-dlr": APGD("dlr", restarts=1, samples=20),
}
VERSIONS = {"standard": STANDARD, "plus": PLUS, "rand": RAND}
# What a list may name, with AutoAttack's numbers for a list: five restarts.
CUSTOM: Parts = {**PLUS, "apgd-t": APGD("targeted_dlr", restarts=5, targets=9)}


def autoattack(version: str | Sequence[str] = "standard") -> Parts:
    """The attacks of a version, by name and in order.

    Args:
      version: "standard"; "plus" (more restarts, and untargeted FAB); "rand" (for
        randomised defences: gradients averaged over 20 draws); or a list of names
        out of apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square.

    Raises:
      ValueError: for a version or a name that there is not.
    """
    if isinstance(version, str):
        if version not in VERSIONS:
            raise ValueError(
                f"version={version!r} is not one of {', '.join(VERSIONS)}, "
                "nor a list of attacks"
            )
        return dict(VERSIONS[version])
    unknown = [name for name in version if name not in CUSTOM]
    if unknown or not version:
        raise ValueError(
            f"unknown attacks {unknown}: wanted some of {', '.join(CUSTOM)}"
        )
    return {name: CUSTOM[name] for name in version}
