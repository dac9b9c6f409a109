"""Training methods. An entry is `objective(model, attack, **args) -> Objective`."""

from robustvit.objectives.adversarial import adversarial
from robustvit.objectives.standard import standard
from robustvit.objectives.trades import trades

OBJECTIVES = {"standard": standard, "adversarial": adversarial, "trades": trades}

__all__ = ["OBJECTIVES", "adversarial", "standard", "trades"]
