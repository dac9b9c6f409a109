"""What a dict of weights may belong to, for error messages.

looks_like(tensors)      # "xcit_small_12_p16_224 (26,253,304 parameters)"
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from robustvit.interop.publishers import to_timm
from robustvit.models.facts import facts

# A pattern that only this family has among its keys, in timm's names; first hit wins.
FAMILIES = (
    ("XCiT", r"^cls_attn_blocks\.|\.local_mp\."),
    ("CaiT", r"^blocks_token_only\."),
    ("a Swin transformer", r"relative_position_bias_table$"),
    ("PoolFormer", r"\.(layer_scale1|res_scale1)\."),
    ("ConvNeXt", r"\.conv_dw\."),
    ("WideResNet", r"^block1\.layer\."),
    ("CLIP with its text tower", r"^token_embedding\."),
    ("DeiT with a distillation token", r"^dist_token$"),
    ("ViT", r"^blocks\.\d+\.attn\.qkv\."),
    ("PreActResNet or CIFAR ResNet", r"^linear\."),
    ("ResNet", r"^layer1\.0\.conv1\."),
)
STATISTICS = re.compile(r"(running_mean|running_var|num_batches_tracked)$")


def looks_like(tensors: Mapping[str, np.ndarray]) -> str:
    """The names with as many parameters, or else the family that the keys suggest."""
    renamed, _ = to_timm(tensors)
    size = sum(v.size for k, v in renamed.items() if not STATISTICS.search(k))
    exact = [name for name, fact in facts().items() if fact.params == size]
    if exact:
        return f"{' or '.join(exact[:3])} ({size:,} parameters)"
    for family, pattern in FAMILIES:
        if any(re.search(pattern, key) for key in renamed):
            return f"a variant of {family} with {size:,} parameters"
    return f"nothing we know, with {size:,} parameters"
