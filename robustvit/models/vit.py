"""ViT, and what it became: AugReg, DeiT, DeiT-III, DINOv2, CLIP. One module for all.

The variants differ in fields, not in code: LayerScale, register tokens, where positions
are added, a norm before the blocks, the MLP. Two hooks let other methods use a frozen
ViT without a copy of it: tokens appended to the sequence, and a function of the stream
after each block.

    model = create_model("deit3_base_patch16_224")
    outputs = model.apply(variables, images, extra_tokens=tokens)

References: Dosovitskiy et al. 2021, arXiv:2010.11929; Steiner et al. 2022,
arXiv:2106.10270 (AugReg); Touvron et al. 2021, arXiv:2012.12877 (DeiT), and 2022,
arXiv:2204.07118 (DeiT-III); Radford et al. 2021, arXiv:2103.00020 (CLIP); Oquab et al.
2023, arXiv:2304.07193 (DINOv2); Darcet et al. 2023, arXiv:2309.16588 (registers).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from robustvit import lookup
from robustvit.models.convolutions import classify
from robustvit.models.layers import (
    LN_EPS,
    DropPath,
    LayerNorm,
    LayerScale,
    Mlp,
    Normalize,
    dense,
    gelu,
    linear_init,
    materialize,
)
from robustvit.models.patches import PatchEmbed
from robustvit.models.positions import RESIZE_METHODS, resize_table
from robustvit.types import AnyArray, Inputs, Outputs, Tokens

# (index of the block, its output) -> what the next block reads.
BlockAdapter = Callable[[int, Tokens], Tokens]

tiny_init = nn.initializers.normal(1e-6)  # of class and register tokens, as in timm


def quick_gelu(x: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
    """x sigmoid(1.702 x): the GELU of OpenAI's CLIP."""
    return x * nn.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu}
SWIGLU = "swiglu"


class ViT(nn.Module):
    """Vision transformer.

    Attributes:
      num_classes: outputs of the head; 0 for none (logits are the class token then).
      image_size: native side, which fixes the shape of the position embedding; images
        of any other size that patches divide are taken too, see `position_resize`.
      patch_size: side of a patch.
      dim, depth, num_heads: width, blocks, attention heads.
      layer_scale: initial LayerScale, None for none.
      num_registers: register tokens between class token and patches.
      cls_position: whether the class token has a position embedding.
      norm_pre: LayerNorm before the blocks, and patches without bias (CLIP).
      norm_eps: of every LayerNorm.
      mlp: "gelu", "quick_gelu", or "swiglu" (DINOv2 giant).
      stem_widths: of a convolutional stem, which halves the image with each of them;
        empty for a linear map of the patches.
      position_resize: how positions get to another grid, see `resize_positions`.
      drop_path: rate of stochastic depth in the last block, rising linearly from 0.
      mean, std: input normalisation of a new model.
      remat: recompute each block in the backward pass instead of storing it.
      dtype: of the computation; parameters, softmax, final norm and head are float32.
    """

    num_classes: int = 1000
    image_size: int = 224
    patch_size: int = 16
    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    layer_scale: float | None = None
    num_registers: int = 0
    cls_position: bool = True
    norm_pre: bool = False
    norm_eps: float = LN_EPS
    mlp: str = "gelu"
    stem_widths: tuple[int, ...] = ()
    position_resize: str = "antialias"
    drop_path: float = 0.0
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    remat: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Checks the fields that are choices."""
        lookup.check("mlp", self.mlp, [*ACTIVATIONS, SWIGLU])
        lookup.check("position_resize", self.position_resize, RESIZE_METHODS)
        if self.dim % self.num_heads:
            raise ValueError(
                f"dim={self.dim} must be a multiple of num_heads={self.num_heads}"
            )
        if self.stem_widths and self.patch_size != 2 ** len(self.stem_widths):
            raise ValueError(
                f"{len(self.stem_widths)} stem_widths make patches of "
                f"{2 ** len(self.stem_widths)} pixels, not patch_size={self.patch_size}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        images: Inputs,
        *,
        train: bool = False,
        extra_tokens: Float[AnyArray, "#b m d"] | None = None,
        block_adapter: BlockAdapter | None = None,
    ) -> Outputs:
        """Class token first, then registers, then patches row by row.

        Args:
          images: (b, h, w, 3) in [0, 1].
          train: whether stochastic depth is on.
          extra_tokens: put behind the embedded sequence, without position, and dropped
            from `features`; in `hidden` they stay.
          block_adapter: called after each block; what it returns goes on.

        Returns:
          `features`, all normed tokens; `hidden`, the stream after each block.
        """
        x = Normalize(self.mean, self.std, name="normalize")(images)
        x = self._embed(x.astype(self.dtype))
        length = x.shape[1]
        if self.norm_pre:
            x = LayerNorm(self.norm_eps, dtype=self.dtype, name="norm_pre")(x)
        if extra_tokens is not None:
            extra = jnp.asarray(extra_tokens, x.dtype)
            extra = jnp.broadcast_to(extra, (len(x), *extra.shape[1:]))
            x = jnp.concatenate([x, extra], axis=1)

        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        hidden = []
        for i in range(self.depth):
            x = block(
                self.num_heads,
                self.mlp,
                self.layer_scale,
                self.norm_eps,
                self.drop_path * i / max(self.depth - 1, 1),
                self.dtype,
                name=f"blocks_{i}",
            )(x, train)
            x = x if block_adapter is None else block_adapter(i, x)
            hidden.append(x)

        z = LayerNorm(self.norm_eps, name="norm")(x)[:, :length]  # float32 from here on
        logits = classify(
            z[:, 0],
            self.num_classes,
            name="head",
            init=linear_init,
            bias_init=nn.initializers.zeros,
        )
        return Outputs(logits=logits, features=z, hidden=tuple(hidden))

    def _embed(self, x):
        """(b, h, w, 3) to tokens (b, 1 + registers + patches, d)."""
        b, h, w, _ = x.shape
        patch, d = self.patch_size, self.dim
        x = PatchEmbed(
            d, patch, not self.norm_pre, self.dtype, self.stem_widths,
            name="patch_embed",
        )(x)  # fmt: skip

        def tokens(name, count):
            value = self.param(name, tiny_init, (1, count, d)).astype(self.dtype)
            return jnp.broadcast_to(value, (b, count, d))

        position = self._positions((h // patch, w // patch)).astype(self.dtype)
        prefix = [tokens("cls_token", 1)]
        if self.cls_position:
            prefix[0] = prefix[0] + position[:, :1]
            position = position[:, 1:]
        if self.num_registers:
            prefix.append(tokens("reg_token", self.num_registers))
        return jnp.concatenate([*prefix, x + position], axis=1)

    def _positions(self, grid):
        """(1, [1 +] h * w, d) for a grid (h, w) of patches."""
        native = self.image_size // self.patch_size
        prefix = int(self.cls_position)
        shape = (1, prefix + native**2, self.dim)
        table = self.param("pos_embed", linear_init, shape)
        return resize_table(table, grid, self.position_resize)


class Block(nn.Module):
    """Attention, then an MLP, each with a norm before and a residual around."""

    num_heads: int
    mlp: str
    layer_scale: float | None
    norm_eps: float
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens, train: bool) -> Tokens:
        """(b, n, d) to (b, n, d)."""

        def add(x, i, branch):
            if self.layer_scale is not None:
                branch = LayerScale(self.layer_scale, self.dtype, name=f"ls{i}")(branch)
            x = x + DropPath(self.drop_path)(branch, train=train)
            return materialize(x, self.get_variable("params", f"norm{i}")["scale"])

        def norm(i):
            return LayerNorm(self.norm_eps, dtype=self.dtype, name=f"norm{i}")

        x = add(x, 1, Attention(self.num_heads, self.dtype, name="attn")(norm(1)(x)))
        if self.mlp == SWIGLU:
            mlp = SwiGlu(self.dtype, name="mlp")
        else:
            mlp = Mlp(self.dtype, ACTIVATIONS[self.mlp], name="mlp")
        return add(x, 2, mlp(norm(2)(x)))


class Attention(nn.Module):
    """Multi-head self-attention; softmax in float32."""

    num_heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """(b, n, d) to (b, n, d)."""
        b, n, d = x.shape
        qkv = dense(3 * d, self.dtype, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, n, 3, self.num_heads, -1), 2, 0)
        x = jax.nn.dot_product_attention(q, k, v).reshape(b, n, d)
        return dense(d, self.dtype, name="proj")(x)


class SwiGlu(nn.Module):
    """silu(a) * b, where a and b are the halves of one wide linear map.

    8 / 3 times the width, rounded up to a multiple of 8 per half, as DINOv2 packs it.
    Reference: Shazeer 2020, arXiv:2002.05202.
    """

    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """(b, n, d) to (b, n, d)."""
        d = x.shape[-1]
        width = -(-(8 * d // 3) // 8) * 8
        a, b = jnp.split(dense(2 * width, self.dtype, name="fc1")(x), 2, axis=-1)
        return dense(d, self.dtype, name="fc2")(nn.silu(a) * b)
