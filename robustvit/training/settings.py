"""What the training loop is told: its data, and how long, how often, where to."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from robustvit.types import Augment, Batch, Mix


@dataclass(frozen=True)
class TrainData:
    """What the loop needs to know of a dataset.

    Attributes:
      train: first step -> endless batches of numpy arrays, a function of the step.
      val: -> batches of the held-out split, padded and masked.
      steps_per_epoch: of `train`.
      batch_size: examples in a global batch.
      image_size: side of the images in pixels.
      augment: augmentation on the device, or None.
      mixing: MixUp or CutMix on the device, or None.
      skipped: () -> unreadable examples replaced so far.
    """

    train: Callable[[int], Generator[Batch, None, None]]
    val: Callable[[], Iterator[Batch]]
    steps_per_epoch: int
    batch_size: int
    image_size: int
    augment: Augment | None = None
    mixing: Mix | None = None
    skipped: Callable[[], int] = lambda: 0


@dataclass(frozen=True)
class Settings:
    """How long to train, what to average, how often to write.

    Attributes:
      epochs: total, cool-down included.
      ema_decay: of the averaged weights; 0 for none.
      accumulate: steps that make one update; divides the steps of an epoch.
      log_every: steps between two records.
      save_every: steps between two checkpoints, besides the one after each epoch.
      keep: latest checkpoints to keep; the best is kept as well.
      best_metric: which metric, higher is better.
      patience: stop after so many epochs without a better `best_metric`; 0: never.
      tensorboard, wandb_project: where else metrics go.
    """

    epochs: int
    ema_decay: float = 0.0
    accumulate: int = 1
    log_every: int = 20
    save_every: int = 1000
    keep: int = 2
    best_metric: str = "val/robust_accuracy"
    patience: int = 0
    tensorboard: bool = False
    wandb_project: str = ""
