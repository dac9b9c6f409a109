"""Swin: attention within windows of a map, which every other block shifts by half.

    model = create_model("swin_base_patch4_window7_224", num_classes=1000)

Names and function are timm's: a stage begins with the merging of patches, and where a
map is no larger than a window it is one window, without shift.

Reference: Liu et al. 2021, arXiv:2103.14030.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from robustvit.models.conv_gradient import conv_general_dilated
from robustvit.models.convolutions import (
    Maps,
    MapsOut,
    classify,
    linear_drop_path,
    pool,
)
from robustvit.models.layers import (
    DropPath,
    LayerNorm,
    Mlp,
    Normalize,
    linear_init,
    materialize,
    torch_bias_init,
    torch_conv_init,
)
from robustvit.models.statistics import IMAGENET
from robustvit.models.windows import WindowAttention, merge, shift_mask, split
from robustvit.types import AnyArray, Inputs, Outputs

NORM_EPS = 1e-5  # torch's default, unlike other transformers of timm

_norm = partial(LayerNorm, NORM_EPS)


class Swin(nn.Module):
    """Hierarchical transformer of windows.

    Attributes:
      num_classes: outputs of the head; 0 for none (logits are pooled features then).
      image_size: side of the images, the only one that is taken.
      patch_size: side of a patch.
      window: side of a window, in tokens.
      dim: width of the first stage; each further one has twice that of the one before.
      depths, num_heads: blocks and attention heads per stage.
      drop_path: rate of stochastic depth in the last block, rising linearly from 0.
      mean, std: input normalisation of a new model.
      remat: recompute each block in the backward pass instead of storing it.
      dtype: of the computation; parameters, softmax, final norm and head are float32.
    """

    num_classes: int = 1000
    image_size: int = 224
    patch_size: int = 4
    window: int = 7
    dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    drop_path: float = 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Inputs, *, train: bool = False) -> Outputs:
        """Images (b, h, w, 3) in [0, 1]; `features` are the normed maps.

        `hidden` holds the maps after each block.
        """
        self._check(images.shape[1:3])
        x = Normalize(self.mean, self.std, name="normalize")(images).astype(self.dtype)
        x = PatchEmbed(self.dim, self.patch_size, self.dtype, name="patch_embed")(x)
        rates = linear_drop_path(self.drop_path, sum(self.depths))
        hidden = []
        for i, depth in enumerate(self.depths):
            maps = Stage(
                num_heads=self.num_heads[i],
                window=self.window,
                downsample=i > 0,
                drop_path=rates[len(hidden) : len(hidden) + depth],
                remat=self.remat,
                dtype=self.dtype,
                name=f"layers_{i}",
            )(x, train)
            hidden.extend(maps)
            x = maps[-1]
        x = _norm(name="norm")(x)  # float32 from here on
        logits = Head(self.num_classes, name="head")(x)
        return Outputs(logits=logits, features=x, hidden=tuple(hidden))

    def _check(self, shape):
        multiple = self.patch_size * 2 ** (len(self.depths) - 1)
        if self.image_size % multiple:
            raise ValueError(
                f"image_size={self.image_size} must be divisible by {multiple}"
            )
        if tuple(shape) != (self.image_size,) * 2:
            # The size of a stage's windows, and so of its table, depends on it.
            raise ValueError(
                f"images of {shape[0]}x{shape[1]} for a Swin with "
                f"image_size={self.image_size}"
            )


class PatchEmbed(nn.Module):
    """Patches to tokens by a linear map, and LayerNorm."""

    dim: int
    size: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps) -> MapsOut:
        """(b, h, w, 3) to (b, h / size, w / size, dim)."""
        x = nn.Conv(
            self.dim,
            (self.size, self.size),
            (self.size, self.size),
            kernel_init=torch_conv_init,
            conv_general_dilated=conv_general_dilated,
            bias_init=torch_bias_init(3 * self.size**2),
            dtype=self.dtype,
            name="proj",
        )(x)
        return _norm(dtype=self.dtype, name="norm")(x)


class Stage(nn.Module):
    """Blocks of one width, after the merging of patches."""

    num_heads: int
    window: int
    downsample: bool
    drop_path: tuple[float, ...]
    remat: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> list[MapsOut]:
        """Maps after each block."""
        if self.downsample:
            x = PatchMerging(self.dtype, name="downsample")(x)
        window = min(self.window, x.shape[1])
        shift = window // 2 if window < x.shape[1] else 0
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        outputs = []
        for i, rate in enumerate(self.drop_path):
            x = block(
                num_heads=self.num_heads,
                window=window,
                shift=shift if i % 2 else 0,
                drop_path=rate,
                dtype=self.dtype,
                name=f"blocks_{i}",
            )(x, train)
            outputs.append(x)
        return outputs


class PatchMerging(nn.Module):
    """Four neighbours side by side, LayerNorm, a linear map to twice the width."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Maps) -> MapsOut:
        """(b, h, w, c) to (b, h / 2, w / 2, 2 c)."""
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c)
        # (b, h/2, w/2, 4c): the column within the four is slower than the row.
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(b, h // 2, w // 2, 4 * c)
        x = _norm(dtype=self.dtype, name="norm")(x)
        return nn.Dense(
            2 * c,
            use_bias=False,
            kernel_init=linear_init,
            dtype=self.dtype,
            name="reduction",
        )(x)


class Block(nn.Module):
    """Attention within windows, then an MLP; each normed before and added."""

    num_heads: int
    window: int
    shift: int
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Maps:
        """(b, h, w, d) to (b, h, w, d)."""
        b, h, w, d = x.shape
        norm = partial(_norm, dtype=self.dtype)
        drop_path = DropPath(self.drop_path)
        attention = WindowAttention(self.num_heads, self.dtype, name="attn")
        down, right = -h % self.window, -w % self.window

        y = norm(name="norm1")(x)
        y = jnp.roll(y, (-self.shift, -self.shift), (1, 2))
        y = jnp.pad(y, ((0, 0), (0, down), (0, right), (0, 0)))
        size = h + down, w + right
        mask = shift_mask(size, self.window, self.shift) if self.shift else None
        y = merge(attention(split(y, self.window), mask), size)
        y = jnp.roll(y[:, :h, :w], (self.shift, self.shift), (1, 2))
        x = x + drop_path(y, train=train)

        y = norm(name="norm2")(x).reshape(b, h * w, d)
        y = Mlp(self.dtype, name="mlp")(y).reshape(x.shape)
        x = x + drop_path(y, train=train)
        return materialize(x, self.variables["params"]["norm1"]["scale"])


class Head(nn.Module):
    """Mean over positions and a linear layer; in float32."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Maps) -> Float[AnyArray, "b k"]:
        """(b, h, w, c) to logits (b, num_classes)."""
        return classify(
            pool(x),
            self.num_classes,
            name="fc",
            init=linear_init,
            bias_init=nn.initializers.zeros,
        )


_DEEP: dict[str, Any] = {"depths": (2, 2, 18, 2)}
_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": _DEEP,
    "base": {"dim": 128, "num_heads": (4, 8, 16, 32), **_DEEP},
    "large": {"dim": 192, "num_heads": (6, 12, 24, 48), **_DEEP},
}

VARIANTS: dict[str, dict[str, Any]] = {
    **{
        f"swin_{size}_patch4_window7_224": {**fields, **IMAGENET}
        for size, fields in _SIZES.items()
    },
    **{
        f"swin_{size}_patch4_window12_384": {
            **_SIZES[size],
            "image_size": 384,
            "window": 12,
            **IMAGENET,
        }
        for size in ("base", "large")
    },
}
