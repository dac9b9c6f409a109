"""What a recipe adds to a training transform: a policy, and several views of an image.

    transform = with_policy(imagenet_train(224), parse_rand_augment("rand-m9-inc1"))
    pixels = views(transform, jpeg_bytes, np.random.default_rng(0), count=3)

The ops of a transform are of two kinds: first those that say which pixels are seen (the
crop and the flip), then those that change what they look like. A policy goes between.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from robustvit.data.images import Raw, decode
from robustvit.data.transforms import (
    CROPS,
    HorizontalFlip,
    RandomOp,
    Resize,
    TrainTransform,
)

PLACING = (Resize, *CROPS, HorizontalFlip)

Ops = tuple[RandomOp, ...]


def with_policy(transform: TrainTransform, policy: RandomOp) -> TrainTransform:
    """The same with `policy` after the crop and the flip, before a small rotation."""
    placing, changing = split_ops(transform)
    return TrainTransform((*placing, policy, *changing))


def split_ops(transform: TrainTransform) -> tuple[Ops, Ops]:
    """Up to the crop and the flip, and what comes after them."""
    ops = transform.ops
    end = max(i for i, op in enumerate(ops) if isinstance(op, PLACING)) + 1
    return ops[:end], ops[end:]


def views(
    transform: TrainTransform, image: Raw, rng: np.random.Generator, count: int
) -> UInt8[np.ndarray, "v _h _w 3"]:
    """The image only cropped and flipped, then `count - 1` augmentations of that.

    All have the same crop, as timm's `aug_splits`.
    """
    placing, changing = split_ops(transform)
    for op in placing:
        image = op(image, rng)
    results = [decode(image)]
    for _ in range(count - 1):
        view = image
        for op in changing:
            view = op(view, rng)
        results.append(decode(view))
    return np.stack(results)
