"""The split grammar of TFDS, for datasets that TFDS does not know.

    select("train[:90%]+test", {"train": 100, "test": 10}, dataset="mine")
    # [("train", 0, 90), ("test", 0, 10)]

Users meet the same "train[:90%]" for digits and folders, and the same errors for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace


def select(
    split: str, sizes: Mapping[str, int], *, dataset: str
) -> list[tuple[str, int, int]]:
    """Runs (split name, start, stop) of examples that a split asks for.

    Raises:
      ValueError: naming the splits there are, with their sizes.
    """
    import tensorflow_datasets as tfds

    # All that TFDS looks at in its own SplitInfo.
    infos = {
        name: SimpleNamespace(num_examples=size, shard_lengths=[size])
        for name, size in sizes.items()
    }
    try:
        absolute = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
    except (ValueError, NotImplementedError) as error:
        raise ValueError(
            f"{dataset} has no split {split!r}; it has {listing(sizes)}, and parts of "
            "these such as 'train[:90%]' or 'test[100:200]'"
        ) from error
    runs = []
    for run in absolute:  # None is how TFDS says "from the start" and "to the end"
        stop = sizes[run.splitname] if run.to is None else run.to
        runs.append((run.splitname, run.from_ or 0, stop))
    if not any(stop > start for _, start, stop in runs):
        raise ValueError(
            f"split {split!r} of {dataset} selects no example; it has {listing(sizes)}"
        )
    return runs


def names(split: str) -> set[str]:
    """The split names in "train[:90%]+test", right or wrong."""
    return {part.split("[")[0].strip() for part in split.split("+")}


def listing(sizes: Mapping[str, int]) -> str:
    """For example "train (1,437 examples), test (360 examples)"."""
    return ", ".join(f"{name} ({size:,} examples)" for name, size in sizes.items())
