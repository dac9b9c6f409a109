"""What an evaluation has found out so far, in memory or in a folder that survives it.

    ledger = Ledger(question, images, labels, ids, folder=Path("runs/eval-state"))
    ledger.broken_by[i] = 2; ledger.x_adv[i] = image
    ledger.save()                       # in one piece, or not at all

A folder holds `state.json` (what is being asked), `state.npz` (what is known) and
`x_adv.npy` (adversarial images, memory-mapped). A chain that was under way when the
process died is run again from its beginning, with the same keys, to the same end.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from robustvit.evaluation.inputs import another_like

SAVE_SECONDS = 15.0
ARRAYS = (
    "clean_predictions", "adversarial_predictions", "ranks", "broken_by", "radius",
    "chain",
)  # fmt: skip


class Ledger:
    """Per-example results, and the place that the evaluation has reached.

    Attributes:
      images, labels, ids: float32 (n, h, w, 3), int32 (n,), and places in the data.
      x_adv: like images; what broke an example, or the clean image.
      clean_predictions, adversarial_predictions: int32 (n,).
      ranks: int32 (n, r), classes by falling clean logit.
      broken_by: int8 (n,); -1 nothing yet, 0 wrong when clean, i the i-th attack.
      radius: float32 (n,); size of the smallest perturbation that is known to break
        an example, 0 where it is wrong when clean, infinite where nothing did.
      chain: int16 (n,); chains of the present attack that are over.
      attack: number of the present attack, from 1; 0 before the clean pass.
      notes: plain numbers by name, saved along: effort, symptoms, seconds.
    """

    def __init__(
        self,
        question: dict[str, Any],
        images: np.ndarray,
        labels: np.ndarray,
        ids: np.ndarray,
        folder: str | Path | None = None,
    ):
        n = len(images)
        self.images, self.labels, self.ids = images, labels, ids
        self.clean_predictions = np.zeros(n, np.int32)
        self.adversarial_predictions = np.zeros(n, np.int32)
        self.ranks = np.zeros((n, 0), np.int32)
        self.broken_by = np.full(n, -1, np.int8)
        self.radius = np.full(n, np.inf, np.float32)
        self.chain = np.zeros(n, np.int16)
        self.attack = 0
        self.notes: dict[str, Any] = {}
        self._folder: Any = None if folder is None else Path(folder)
        self.x_adv: Any
        self._saved = time.monotonic()
        if self._folder is None:
            self.x_adv = another_like(images)
        elif (self._folder / "state.json").exists():
            self._restore(question)
        else:
            self._create(question)

    def save_if_due(self) -> None:
        """Save, unless that was a moment ago."""
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write everything; a reader sees the old state or the new one."""
        if self._folder is None:
            return
        self.x_adv.flush()  # first: flags must not promise images that are not there
        arrays = {name: getattr(self, name) for name in ARRAYS}
        notes = json.dumps({"attack": self.attack, "notes": self.notes})
        draft = self._folder / "state.tmp.npz"
        with draft.open("wb") as file:
            np.savez(file, notes=np.array(notes), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._folder / "state.npz")
        self._saved = time.monotonic()

    def _create(self, question):
        self._folder.mkdir(parents=True, exist_ok=True)
        self.x_adv = np.lib.format.open_memmap(
            self._folder / "x_adv.npy", "w+", np.float32, self.images.shape
        )
        self.x_adv[:] = self.images
        self.save()
        # Last, because its presence says that the rest is there.
        draft = self._folder / "state.tmp.json"
        draft.write_text(json.dumps(question, indent=1))
        os.replace(draft, self._folder / "state.json")

    def _restore(self, question):
        before = json.loads((self._folder / "state.json").read_text())
        changes = difference(before, json.loads(json.dumps(question)))
        if changes:
            raise ValueError(
                f"{self._folder} holds another evaluation; was -> is now:\n  "
                + "\n  ".join(changes)
                + "\nuse another folder, or delete this one to begin again"
            )
        with np.load(self._folder / "state.npz") as saved:
            for name in ARRAYS:
                setattr(self, name, saved[name])
            notes = json.loads(str(saved["notes"]))
        self.attack, self.notes = notes["attack"], notes["notes"]
        self.x_adv = np.load(self._folder / "x_adv.npy", mmap_mode="r+")


def difference(was: Any, now: Any, name: str = "") -> list[str]:
    """Lines "key: was -> now" for every leaf in which two JSON values differ."""
    if isinstance(was, dict) and isinstance(now, dict):
        keys = [*was, *(key for key in now if key not in was)]
        if list(was) != list(now) and set(was) == set(now):
            return [f"{name}: {', '.join(was)} -> {', '.join(now)}"]
        parts = (
            difference(was.get(k), now.get(k), f"{name}.{k}" if name else k)
            for k in keys
        )
        return [line for part in parts for line in part]
    return [] if was == now else [f"{name}: {was} -> {now}"]
