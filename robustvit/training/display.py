"""What a person sees of a running training: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

import jax
from tqdm import tqdm


class Display:
    """A progress bar with rate, loss, accuracies, MFU and time left.

    Only process 0 shows anything. Without a terminal (a log file, CI) there is no bar;
    the line at the end of every epoch is the same.
    """

    def __init__(self, start: int, total: int, steps_per_epoch: int, batch_size: int):
        self._quiet = jax.process_index() != 0
        self._total, self._per_epoch = total, steps_per_epoch
        self._start = time.perf_counter()
        self._last: dict[str, float] = {}
        self._bar = tqdm(
            total=total,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            disable=self._quiet or not sys.stderr.isatty(),
            bar_format="{percentage:3.0f}% |{bar:16}| {n}/{total} "
            "[{elapsed}<{remaining}] {desc}",
        )
        epochs = total // steps_per_epoch
        where = f"from step {start} " if start else ""
        self.say(
            f"training {where}to {total} ({epochs} epochs of {steps_per_epoch} steps, "
            f"{batch_size} images each); compiling ..."
        )

    def step(self, done: int) -> None:
        """One more step is done."""
        self._bar.update(done - self._bar.n)

    def show(self, values: Mapping[str, float]) -> None:
        """New training metrics."""
        if "images_per_second" not in values:
            seconds = time.perf_counter() - self._start
            self.say(f"compiled and did the first step in {seconds:.1f} s")
        self._last = dict(values)
        self._bar.set_description_str(_line(values), refresh=False)

    def say(self, text: str) -> None:
        """A sentence that stays on the screen."""
        if not self._quiet:
            tqdm.write(text, file=sys.stderr)

    def epoch(self, epoch: float, values: Mapping[str, float]) -> None:
        """Validation at the end of an epoch."""
        total = self._total // self._per_epoch
        self.say(
            f"epoch {epoch:3.0f}/{total}  {_line(self._last)} | held out: "
            f"clean {values['val/clean_accuracy']:.1%}, "
            f"robust {values['val/robust_accuracy']:.1%}"
        )

    def __enter__(self) -> Display:
        """Nothing to open: the constructor did."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar as it is and go to a new line."""
        self._bar.close()


def _line(values):
    shown = []
    if "train/loss" in values:
        shown.append(f"loss {values['train/loss']:.3f}")
    for kind in ("clean", "robust"):
        if f"train/{kind}_accuracy" in values:
            shown.append(f"{kind} {values[f'train/{kind}_accuracy']:.1%}")
    if "images_per_second" in values:
        shown.append(f"{values['images_per_second']:.0f} img/s")
        shown.append(f"MFU {values['mfu']:.0%}")
        shown.append(f"waiting for data {values['data_wait']:.0%}")
    return ", ".join(shown)
