"""From the words of a config to what is done to training images, on host and device.

transform, augment, mixing = augmentation.build(config)  # resolved
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from robustvit import lookup
from robustvit.data import transforms
from robustvit.data.augment import Augment
from robustvit.data.mixing import Mixing
from robustvit.data.rand_augment import RandAugment, parse_rand_augment
from robustvit.data.three_augment import ThreeAugment
from robustvit.data.views import split_ops, with_policy

Config = Any  # a ConfigDict

TRANSFORMS = {
    "imagenet": transforms.imagenet_train,
    "cifar": transforms.cifar_train,
    "digits": transforms.digits_train,
}
THREE_AUGMENT = "3-augment"


class Augmentation(NamedTuple):
    """What a training image goes through, in this order."""

    transform: transforms.TrainTransform  # on the host, the policy in it
    augment: Augment | None  # on the device
    mixing: Mixing | None  # on the device, after that


def build(c: Config) -> Augmentation:
    """All of it.

    Raises:
      ValueError: for what does not exist, and for what does not go together.
    """
    transform = lookup.build(
        "transform",
        TRANSFORMS,
        c.data.transform.name,
        c.data.image_size,
        **c.data.transform.args,
    )
    policy, augment = build_policy(c.data.policy), Augment(**c.data.augment)
    if policy is not None:
        transform = with_policy(transform, policy)
    if isinstance(policy, RandAugment):
        # timm's rule: RandAugment has operations on colours of its own.
        augment = dataclasses.replace(
            augment, brightness=0.0, contrast=0.0, saturation=0.0
        )
    on_device = augment if augment != Augment() else None
    if c.data.repeats > 1 and not split_ops(transform)[1] and on_device is None:
        raise ValueError(
            f"data.repeats={c.data.repeats}, but all views of an image would be the "
            "same: wanted a data.policy, or a data.augment"
        )
    return Augmentation(transform, on_device, build_mixing(c))


def build_policy(text: str) -> RandAugment | ThreeAugment | None:
    """The policy of `data.policy`, None for none."""
    if not text:
        return None
    if text == THREE_AUGMENT:
        return ThreeAugment()
    if text.startswith("rand-"):
        return parse_rand_augment(text)
    raise ValueError(
        f"unknown data.policy {text!r}: there are {THREE_AUGMENT} and RandAugment, as "
        "in rand-m9-mstd0.5-inc1; empty for none"
    )


def build_mixing(c: Config) -> Mixing | None:
    """MixUp and CutMix for the classes of the model; None where both are 0."""
    if c.data.mixing.mixup == c.data.mixing.cutmix == 0:
        return None
    if c.data.batch_size % 2:
        raise ValueError(
            f"data.batch_size={c.data.batch_size} must be even for data.mixing, which "
            "mixes images in pairs"
        )
    return Mixing(c.model.args.num_classes, **c.data.mixing)
