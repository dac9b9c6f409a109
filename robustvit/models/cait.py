"""CaiT: LayerScale, talking heads, and class attention in blocks of their own.

    model = create_model("cait_s12_224")
    outputs = model.apply(variables, images)  # images (b, h, w, 3) in [0, 1]

References: Touvron et al. 2021, arXiv:2103.17239; the S12 is Debenedetti et al.'s,
arXiv:2209.07399.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from robustvit.models.attention import ClassAttention
from robustvit.models.convolutions import classify
from robustvit.models.layers import (
    DropPath,
    LayerNorm,
    Mlp,
    Normalize,
    dense,
    linear_init,
    materialize,
)
from robustvit.models.patches import PatchEmbed
from robustvit.models.positions import resize_table
from robustvit.models.statistics import IMAGENET
from robustvit.types import AnyArray, Inputs, Outputs, Tokens


class CaiT(nn.Module):
    """Class-attention in image transformers.

    Attributes:
      num_classes: outputs of the head; 0 for none (logits are the class token then).
      image_size: native side, which fixes the shape of the position embedding; others
        that patches divide are taken too.
      patch_size: side of a patch.
      dim, depth, num_heads: width, blocks over patches (two of class attention follow),
        attention heads.
      layer_scale: initial LayerScale.
      drop_path: rate of stochastic depth, the same in every block over patches.
      mean, std: input normalisation of a new model.
      remat: recompute each block in the backward pass instead of storing it.
      dtype: of the computation; parameters, softmax, final norm and head are float32.
    """

    num_classes: int = 1000
    image_size: int = 224
    patch_size: int = 16
    dim: int = 384
    depth: int = 12
    num_heads: int = 8
    layer_scale: float = 1e-5
    drop_path: float = 0.0
    mean: tuple[float, ...] = IMAGENET["mean"]
    std: tuple[float, ...] = IMAGENET["std"]
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Inputs, *, train: bool = False) -> Outputs:
        """Images (b, h, w, 3) in [0, 1]; `features` are the normed tokens, cls first.

        `hidden` holds the patch tokens (b, n, d) after each block over patches.
        """
        x = Normalize(self.mean, self.std, name="normalize")(images)
        x = x.astype(self.dtype)
        b, h, w, _ = x.shape
        patch, d = self.patch_size, self.dim
        x = PatchEmbed(d, patch, True, self.dtype, name="patch_embed")(x)
        x = x + self._positions((h // patch, w // patch)).astype(self.dtype)

        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        hidden = []
        for i in range(self.depth):
            x = block(
                self.num_heads,
                self.layer_scale,
                self.drop_path,
                self.dtype,
                name=f"blocks_{i}",
            )(x, train)
            hidden.append(x)

        cls = self.param("cls_token", linear_init, (1, 1, d))
        cls = jnp.broadcast_to(cls.astype(x.dtype), (b, 1, d))
        for i in range(2):
            cls = ClassBlock(
                self.num_heads,
                self.layer_scale,
                self.dtype,
                name=f"blocks_token_only_{i}",
            )(cls, x)
        z = LayerNorm(name="norm")(jnp.concatenate([cls, x], axis=1))
        logits = classify(
            z[:, 0],
            self.num_classes,
            name="head",
            init=linear_init,
            bias_init=nn.initializers.zeros,
        )
        return Outputs(logits=logits, features=z, hidden=tuple(hidden))

    def _positions(self, grid):
        """(1, h * w, d) for a grid (h, w) of patches."""
        native = self.image_size // self.patch_size
        table = self.param("pos_embed", linear_init, (1, native**2, self.dim))
        return resize_table(table, grid, "antialias")


class Block(nn.Module):
    """Talking-heads attention, then an MLP, both scaled per channel."""

    num_heads: int
    layer_scale: float
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens, train: bool) -> Tokens:
        """(b, n, d) to (b, n, d)."""

        def add(x, i, branch):
            init = nn.initializers.constant(self.layer_scale)
            gamma = self.param(f"gamma_{i}", init, (x.shape[-1],))
            branch = branch * gamma.astype(self.dtype)
            x = x + DropPath(self.drop_path)(branch, train=train)
            return materialize(x, gamma)

        def norm(i):
            return LayerNorm(dtype=self.dtype, name=f"norm{i}")

        attention = TalkingHeads(self.num_heads, self.dtype, name="attn")
        x = add(x, 1, attention(norm(1)(x)))
        return add(x, 2, Mlp(self.dtype, name="mlp")(norm(2)(x)))


class TalkingHeads(nn.Module):
    """Self-attention whose heads are mixed before and after the softmax.

    Reference: Shazeer et al. 2020, arXiv:2003.02436.
    """

    num_heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """(b, n, d) to (b, n, d)."""
        b, n, d = x.shape
        qkv = dense(3 * d, self.dtype, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, n, 3, self.num_heads, -1), 2, 0)
        scores = jnp.einsum("bqhc,bkhc->bqkh", q, k, preferred_element_type=jnp.float32)
        scores *= q.shape[-1] ** -0.5
        scores = dense(self.num_heads, jnp.float32, name="proj_l")(scores)
        attention = nn.softmax(scores, axis=2)
        attention = dense(self.num_heads, self.dtype, name="proj_w")(attention)
        x = jnp.einsum("bqkh,bkhc->bqhc", attention, v).reshape(b, n, d)
        return dense(d, self.dtype, name="proj")(x)


class ClassBlock(nn.Module):
    """Class attention, then an MLP, on the class token alone."""

    num_heads: int
    layer_scale: float
    dtype: Any

    @nn.compact
    def __call__(
        self, cls: Float[AnyArray, "b 1 d"], x: Tokens
    ) -> Float[AnyArray, "b 1 d"]:
        """The new class token, from itself and the patches."""
        init = nn.initializers.constant(self.layer_scale)
        gamma1, gamma2 = (
            self.param(f"gamma_{i}", init, (cls.shape[-1],)).astype(self.dtype)
            for i in (1, 2)
        )
        z = jnp.concatenate([cls, x], axis=1)
        z = LayerNorm(dtype=self.dtype, name="norm1")(z)
        cls = cls + gamma1 * ClassAttention(self.num_heads, self.dtype, name="attn")(z)
        z = LayerNorm(dtype=self.dtype, name="norm2")(cls)
        return cls + gamma2 * Mlp(self.dtype, name="mlp")(z)


def _variant(dim, depth, num_heads, layer_scale, image_size=224) -> dict[str, Any]:
    return {
        "dim": dim,
        "depth": depth,
        "num_heads": num_heads,
        "layer_scale": layer_scale,
        "image_size": image_size,
    }


VARIANTS: dict[str, dict[str, Any]] = {
    "cait_s12_224": _variant(384, 12, 8, 1.0),
    "cait_xxs24_224": _variant(192, 24, 4, 1e-5),
    "cait_xxs24_384": _variant(192, 24, 4, 1e-5, 384),
    "cait_xxs36_224": _variant(192, 36, 4, 1e-5),
    "cait_xxs36_384": _variant(192, 36, 4, 1e-5, 384),
    "cait_xs24_384": _variant(288, 24, 6, 1e-5, 384),
    "cait_s24_224": _variant(384, 24, 8, 1e-5),
    "cait_s24_384": _variant(384, 24, 8, 1e-5, 384),
    "cait_s36_384": _variant(384, 36, 8, 1e-6, 384),
    "cait_m36_384": _variant(768, 36, 16, 1e-6, 384),
    "cait_m48_448": _variant(768, 48, 16, 1e-6, 448),
}
