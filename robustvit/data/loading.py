"""One example of a source as a row of a batch, or what is done if it is unreadable.

skip = skipper("skip", stats := LoaderStats())
row = load_readable(source, transform, skip, 1, index, np.random.default_rng(0))
stats.skipped                # times that another example had to take the place
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from robustvit.data.images import CorruptImageError, Raw
from robustvit.data.sources import Source
from robustvit.data.transforms import TrainTransform
from robustvit.data.views import views

OnError = Literal["raise", "skip"]
Example = dict[str, Any]  # one row of a batch

# More unreadable examples in a row than this are a broken dataset, not bad luck.
MAX_SKIPS_IN_A_ROW = 100


class LoaderStats:
    """Counts that the loader's threads keep for whoever passed this in.

    They run ahead of the batches taken, by what is prefetched.
    """

    def __init__(self) -> None:
        """Nothing is skipped yet."""
        self._lock = threading.Lock()
        self._skipped: list[str] = []

    @property
    def skipped(self) -> int:
        """Times that an unreadable example was met and skipped."""
        return len(self._skipped)

    @property
    def skipped_names(self) -> tuple[str, ...]:
        """The examples skipped, once each, with the reason."""
        with self._lock:
            return tuple(dict.fromkeys(self._skipped))

    def skip(self, name: str) -> None:
        """Counts one more."""
        with self._lock:
            self._skipped.append(name)


def load_readable(
    source: Source,
    transform: TrainTransform,
    skip: Callable[[CorruptImageError], None],
    repeats: int,
    index: int,
    rng: np.random.Generator,
) -> Example:
    """An example, or the next readable one: the same in every run."""

    def apply(image: Raw) -> np.ndarray:
        if repeats == 1:
            return transform(image, rng)
        return views(transform, image, rng, repeats)

    tries = min(MAX_SKIPS_IN_A_ROW, len(source))
    for i in range(index, index + tries):
        try:
            example = load(source, i % len(source), apply)
            return example if repeats == 1 else _rows(example, repeats)
        except CorruptImageError as error:
            skip(error)
    raise CorruptImageError(
        f"got {tries} unreadable images in a row, the first: {source.describe(index)}"
    )


def _rows(example: Example, repeats: int) -> Example:
    """An example whose image is several views, as that many rows of a batch."""
    rows = {name: np.repeat(value, repeats) for name, value in example.items()
            if name != "image"}  # fmt: skip
    number = np.arange(repeats, dtype=np.int32)
    return {"image": example["image"], **rows, "view": number}


def load(source: Source, index: int, apply: Callable[[Raw], np.ndarray]) -> Example:
    """One transformed example; what is wrong with it is said with its name."""
    raw = source[index]
    if not 0 <= raw["label"] < source.num_classes:
        raise ValueError(
            f"{source.describe(index)} has label {raw['label']}, wanted it in "
            f"[0, {source.num_classes})"
        )
    try:
        image = apply(raw["image"])
    except CorruptImageError as error:
        message = f"{source.describe(index)} cannot be decoded: {error}"
        raise CorruptImageError(message) from error
    return example_row(image, label=raw["label"], index=index, mask=True)


def example_row(image: np.ndarray, *, label: int, index: int, mask: bool) -> Example:
    """A row: an image (or its views), and numbers of the types that batches have."""
    return {
        "image": image,
        "label": np.int32(label),
        "index": np.int32(index),
        "mask": np.bool_(mask),
    }


def skipper(
    on_error: OnError, stats: LoaderStats | None
) -> Callable[[CorruptImageError], None]:
    """What happens to an unreadable image: called with its error, may raise it."""
    if on_error not in ("raise", "skip"):
        raise ValueError(f"got on_error={on_error!r}, wanted 'raise' or 'skip'")

    def skip(error: CorruptImageError) -> None:
        if on_error == "raise":
            raise error
        if stats is not None:
            stats.skip(str(error))

    return skip
