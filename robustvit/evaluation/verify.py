"""Can a report be trusted? Its inputs, its arithmetic, and a sample of its verdicts.

    verification = verify(saved, forward, images, labels, threat, attacks)
    print(verification); verification.trusted

`saved` is the report's JSON; the rest is what it claims to be about. The sample is
attacked again as it was the first time, with the same random draws. On the same devices
and with the same jax every verdict must come out the same; elsewhere floats are rounded
in another way, and `allowed_changes` says how many may differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from scipy.special import betaincinv

from robustvit.attacks.slots import SlotAttack
from robustvit.evaluation.engine import evaluate
from robustvit.evaluation.fingerprints import fingerprints
from robustvit.evaluation.forwards import keyed
from robustvit.evaluation.hardware import devices
from robustvit.evaluation.inputs import Chunk, gather
from robustvit.evaluation.ledger import difference
from robustvit.evaluation.report import summary
from robustvit.threat import ThreatModel, format_eps
from robustvit.types import Forward

CHANGED = 0.02  # share of verdicts that rounding may change
RISK = 0.05  # of missing false verdicts, at the share that is stated
SHOWN = 5  # changed verdicts that are listed


@dataclass(frozen=True)
class Check:
    """One question to a report, what was found, and what is wrong with that."""

    name: str
    found: str
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A line, and one more per problem."""
        lines = [f"{'!!' if self.problems else 'ok'}  {self.name:<9} {self.found}"]
        return "\n".join(lines + [f"{'':14}{problem}" for problem in self.problems])


@dataclass(frozen=True)
class Verification:
    """The checks of one report, and how far a passed one goes."""

    checks: tuple[Check, ...]
    reach: str = ""

    @property
    def trusted(self) -> bool:
        """Whether no check found a problem."""
        return not any(check.problems for check in self.checks)

    def __str__(self) -> str:
        """Every check, then the verdict."""
        failed = ", ".join(check.name for check in self.checks if check.problems)
        verdict = f"NOT TRUSTED: {failed}" if failed else f"TRUSTED: {self.reach}"
        return "\n".join([*map(str, self.checks), verdict])


def verify(
    saved: Mapping[str, Any],
    forward: Forward,
    images: np.ndarray | Iterable[Chunk],
    labels: np.ndarray | None,
    threat: ThreatModel,
    attacks: Mapping[str, SlotAttack],
    *,
    examples: int = 32,
    seed: int = 0,
    batch_size: int = 128,
    progress: bool = True,
) -> Verification:
    """Check a report against what it claims to be about.

    Args:
      saved: the report, as read from its JSON.
      forward, images, labels, threat, attacks: as for `evaluate`, built anew.
      examples: how many to attack again.
      seed: of which examples those are.
      batch_size, progress: as for `evaluate`.

    Raises:
      ValueError: for fewer than one example.
    """
    if examples < 1:
        raise ValueError(f"examples={examples} must be at least 1")
    images, labels = gather(images, labels)
    same = is_same_place(saved)
    checks = [
        *_inputs(saved, forward, images, labels, same),
        _arithmetic(saved, labels),
    ]
    if any(check.problems for check in checks):  # attacks take time
        return Verification(tuple(checks))
    claimed = np.asarray(saved["broken_by"])
    ids = choose(claimed, examples, seed)
    again = evaluate(
        forward, images[ids], labels[ids], threat, attacks, ids=ids,
        seed=saved["seed"], batch_size=batch_size, progress=progress,
    )  # fmt: skip
    allowed = allowed_changes(len(ids), same)
    checks.append(_verdicts(claimed, ids, again.broken_by, list(attacks), allowed))
    return Verification(tuple(checks), _reach(claimed, ids, allowed))


def is_same_place(saved: Mapping[str, Any]) -> bool:
    """Whether floats are rounded here as they were for the report."""
    here = devices(), jax.__version__
    return here == (saved["device"], saved["versions"].get("jax"))


def allowed_changes(examples: int, same_place: bool) -> int:
    """How many verdicts of a sample may differ: 2 %, but one at least; else none."""
    return 0 if same_place else max(1, int(CHANGED * examples))


def choose(broken_by: np.ndarray, examples: int, seed: int) -> np.ndarray:
    """Places of a random sample, sorted: robust, broken and wrong ones as 2 : 1 : 1.

    Where one kind runs out, the others fill its part.
    """
    rng, turn = np.random.default_rng(seed), np.zeros(len(broken_by))
    robust, broken, wrong = broken_by == -1, broken_by > 0, broken_by == 0
    for kind, weight in ((robust, 2), (broken, 1), (wrong, 1)):
        places = rng.permutation(np.flatnonzero(kind))
        turn[places] = np.arange(1, len(places) + 1) / weight
    return np.sort(np.argsort(turn, kind="stable")[:examples])


def _inputs(saved, forward, images, labels, same):
    """Is this the model, are these the images that the report is about?"""
    was, now = saved["fingerprints"], fingerprints(keyed(forward), images, labels)
    # Another jax, or another backend, may write the same model as another program.
    part = "model" if same else "weights"
    for name, key in (("model", part), ("data", "data")):
        changed = difference({key: was.get(key)}, {key: now[key]})
        text = f"another {name} than the report's; fingerprint was -> is:"
        found = f"the same {key}, {now[key]}"
        yield Check(name, text if changed else found, tuple(changed))


def _arithmetic(saved, labels):
    """Do the report's numbers follow from its verdicts?"""
    broken_by, names = np.asarray(saved["broken_by"]), list(saved["attacks"])
    expected = json.loads(json.dumps(summary(broken_by, names)))
    expected["threat"] = {
        **saved["threat"],
        "eps": format_eps(saved["threat"]["eps_float"]),
    }
    problems = difference({key: saved.get(key) for key in expected}, expected)
    problems += _curve(saved, expected)
    if len(broken_by) != len(labels):
        problems.append(f"{len(broken_by)} verdicts for {len(labels)} images")
    if broken_by.min() < -1 or broken_by.max() > len(names):
        problems.append(f"broken_by must lie in [-1, {len(names)}], an attack each")
    text = "do not follow from the verdicts; reported -> what follows:"
    found = f"follow from the {len(broken_by)} verdicts"
    return Check("numbers", text if problems else found, tuple(problems))


def _curve(saved, expected):
    """Robust accuracy by eps, whose ends are known; the rest is not attacked again."""
    shares = (saved.get("curve") or {}).get("robust_accuracy") or []
    ends = [expected["clean_accuracy"], expected["robust_accuracy"]]
    falls = all(a >= b for a, b in pairwise(shares))
    if not shares or ([shares[0], shares[-1]] == ends and falls):
        return []
    return [f"curve: must fall from {ends[0]:g} to {ends[1]:g}, got {shares}"]


def _verdicts(claimed, ids, again, names, allowed):
    """Does the sample fall, and stand, as it did?"""
    was = claimed[ids]
    changed = np.flatnonzero(again != was)
    place = "not both the report's" if allowed else "the report's"
    found = (
        f"{len(ids)} of {len(claimed)} examples attacked again, {(was == -1).sum()} of "
        f"them robust: {len(changed)} changed, {allowed} may; "
        f"devices and jax are {place}"
    )
    lines = [
        f"example {ids[i]}: {_words(was[i], names)} -> {_words(again[i], names)}"
        for i in changed[:SHOWN]
    ]
    if len(changed) > SHOWN:
        lines.append(f"and {len(changed) - SHOWN} more")
    if len(changed) <= allowed:
        return Check("verdicts", "; ".join([found, *lines]))
    return Check("verdicts", found, tuple(lines))


def _words(verdict, names):
    if verdict <= 0:
        return "robust" if verdict == -1 else "wrong without an attack"
    return f"broken by {names[verdict - 1]}"


def _reach(claimed, ids, allowed):
    """What a sample that passed says of the rest (Clopper & Pearson 1934)."""
    robust, asked = (claimed == -1).sum(), (claimed[ids] == -1).sum()
    if asked == robust:
        return f"all {robust} robust verdicts were attacked again"
    if asked <= allowed:
        return "but too few robust verdicts were attacked again to mean anything"
    share = betaincinv(allowed + 1, asked - allowed, 1 - RISK)
    return (
        f"had {share:.0%} of the robust verdicts been false, this sample would have "
        f"failed with {1 - RISK:.0%} probability; more --examples see more"
    )
