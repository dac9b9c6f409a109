"""Bai et al.'s eight-fold BatchNorm, folded into the one that evaluation uses.

    state_dict = fold_eight_bn(state_dict)  # keys and tensors of an ordinary ResNet-50

Each of their norms is eight BatchNorms `bn0` ... `bn7` of twice as many virtual
channels, without scale and bias, then a depthwise 1x1 convolution `aff.bnconv` that is
scale and bias. Evaluation takes the first half of the statistics of `bn0`.

Reference: Bai et al. 2021, arXiv:2111.05464.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_STATISTICS = re.compile(r"(.+)\.bn(\d)\.proxy_bn\.(\w+)")
_AFFINE = re.compile(r"(.+)\.aff\.bnconv\.(weight|bias)")


def fold_eight_bn(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`x.bn0.proxy_bn.*` and `x.aff.bnconv.*` to `x.*`; all other keys as they are.

    Raises:
      ValueError: if a norm has only one of the two.
    """
    folded: dict[str, np.ndarray] = {}
    statistics, affine = set(), set()
    for key, array in state_dict.items():
        if match := _STATISTICS.fullmatch(key):
            norm, index, name = match.groups()
            statistics.add(norm)
            if index == "0" and name in ("running_mean", "running_var"):
                folded[f"{norm}.{name}"] = array[: array.size // 2]
        elif match := _AFFINE.fullmatch(key):
            norm, name = match.groups()
            affine.add(norm)
            folded[f"{norm}.{name}"] = array.reshape(-1)  # (c, 1, 1, 1) to (c,)
        else:
            folded[key] = array
    if statistics != affine:
        raise ValueError(
            "eight-fold BatchNorm with statistics or scale missing: "
            f"{sorted(statistics ^ affine)}"
        )
    return folded
