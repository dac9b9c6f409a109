"""Writes augment.npz: timm's RandAugment operations, and its MixUp targets and boxes.

python tests/golden/make_augment.py      # needs torch 2, timm 1.0.31 and Pillow 13.0
"""

import random
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image
from timm.data.auto_augment import (
    _RAND_INCREASING_TRANSFORMS,
    _RAND_TRANSFORMS,
    AugmentOp,
)
from timm.data.mixup import cutmix_bbox_and_lam, mixup_target

FILL = (124, 116, 104)  # what create_transform makes of ImageNet's mean
MAGNITUDES = (0.0, 2.5, 6.2, 9.0, 9.73, 10.0)
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
WARPS = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}
SIGNED = {"ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing",
          "SharpnessIncreasing", *WARPS}  # fmt: skip
SHARES = (0.0, 0.1, 0.37, 0.5, 0.83, 0.999, 1.0)
HEIGHT, WIDTH = 12, 17


def picture() -> np.ndarray:
    """Smooth, a little noisy, and neither black nor white anywhere."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(20, 230, (4, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((21, 18), Image.Resampling.BICUBIC), int)
    noisy = smooth + rng.integers(-6, 7, smooth.shape)
    return np.clip(noisy, 5, 240).astype(np.uint8)


def apply(image: np.ndarray, name: str, magnitude: float, sign: int, filter_: str):
    options = {"img_mean": FILL, "interpolation": FILTERS[filter_]}
    op = AugmentOp(name, prob=1.0, magnitude=magnitude, hparams=options)
    # timm turns the sign around above 0.5
    with mock.patch.object(random, "random", lambda: 0.2 if sign > 0 else 0.8):
        return np.asarray(op(Image.fromarray(image)))


def operations(image: np.ndarray):
    for name in sorted({*_RAND_TRANSFORMS, *_RAND_INCREASING_TRANSFORMS}):
        for magnitude in MAGNITUDES:
            for sign in (1, -1) if name in SIGNED else (1,):
                for filter_ in FILTERS if name in WARPS else ("bicubic",):
                    key = f"{name}/{magnitude}/{sign}/{filter_}"
                    try:
                        yield key, apply(image, name, magnitude, sign, filter_)
                    except ValueError as error:  # Pillow on posterizing to 0 bits
                        print(f"{key} left out: {error}")


def boxes():
    """Rows of share, row, column, and timm's edges and corrected share."""
    for share in SHARES:
        for row in (0, 5, HEIGHT - 1):
            for column in (0, 9, WIDTH - 1):
                centre = iter((row, column))
                with mock.patch.object(
                    np.random, "randint", lambda *_, centre=centre, **__: next(centre)
                ):
                    edges, corrected = cutmix_bbox_and_lam((3, HEIGHT, WIDTH), share)
                yield (share, row, column, *edges, corrected)


if __name__ == "__main__":
    import torch

    image = picture()
    labels = torch.tensor([3, 0, 4, 4])
    targets = [
        mixup_target(labels, 5, share, smoothing).numpy()
        for share in SHARES
        for smoothing in (0.0, 0.1)
    ]
    done = dict(operations(image))
    np.savez_compressed(
        Path(__file__).with_name("augment.npz"),
        image=image,
        names=np.array([*done]),
        results=np.stack([*done.values()]),
        boxes=np.array([*boxes()], np.float64),
        shares=np.array(SHARES),
        labels=labels.numpy(),
        targets=np.stack(targets).reshape(len(SHARES), 2, 4, 5),
    )
