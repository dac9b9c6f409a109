"""XCiT: attention between channels instead of tokens, linear in the number of tokens.

The variants of the Light Recipe, with every quirk of the published code, so that
published weights give published logits: LPI between attention and MLP but numbered 3,
LayerScale, class attention whose patches pass through the norm, learned projection of
Fourier positions.

    model = create_model("xcit_small_12_p16_224", num_classes=1000)
    outputs = model.apply(variables, images)  # images (b, h, w, 3) in [0, 1]

References: El-Nouby et al. 2021, arXiv:2106.09681; Debenedetti et al. 2023,
arXiv:2209.07399 (the 12-block medium and large, and smaller patches by stride).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from robustvit.models.attention import ClassAttention
from robustvit.models.convolutions import classify, conv
from robustvit.models.depthwise import DepthwiseConv3x3
from robustvit.models.layers import (
    BatchNorm,
    DropPath,
    LayerNorm,
    Mlp,
    Normalize,
    dense,
    gelu,
    linear_init,
    materialize,
    torch_conv_init,
)
from robustvit.models.positions import FourierPositions
from robustvit.types import AnyArray, Inputs, Outputs, Tokens

NORM_EPS = 1e-12  # torch's F.normalize


class XCiT(nn.Module):
    """Cross-covariance image transformer.

    Attributes:
      num_classes: outputs of the head; 0 for none (logits are the class token then).
      dim: width of the tokens.
      num_heads: heads of both kinds of attention.
      depth: XCA blocks; two class-attention blocks follow them.
      eta: initial LayerScale; 1.0 up to 12 blocks, 1e-5 from 24 on.
      tokens_norm: whether class-attention blocks normalise patch tokens too.
      strides: of the 3x3 convolutions of the stem; their product is the patch size.
      drop_path: rate of stochastic depth, the same in every XCA block.
      mean, std: input normalisation of a new model; the recipe's ImageNet models have
        none.
      bn_group: examples per group of batch statistics, None for the whole batch.
      remat: recompute each block in the backward pass instead of storing it.
      dtype: of the computation; parameters, statistics, softmax and head are float32.
    """

    num_classes: int = 1000
    dim: int = 384
    num_heads: int = 8
    depth: int = 12
    eta: float = 1.0
    tokens_norm: bool = True
    strides: tuple[int, ...] = (2, 2, 2, 2)
    drop_path: float = 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    bn_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Inputs, *, train: bool = False) -> Outputs:
        """Images (b, h, w, 3) in [0, 1]; `features` are the normed tokens, cls first.

        `hidden` holds the patch tokens (b, n, d) after each XCA block.
        """
        x = Normalize(self.mean, self.std, name="normalize")(images).astype(self.dtype)
        x = ConvStem(
            self.dim, self.strides, self.bn_group, self.dtype, name="patch_embed"
        )(x, train)
        b, h, w, d = x.shape
        position = FourierPositions(d, self.dtype, name="pos_embed")(h, w)
        x = (x + position).reshape(b, h * w, d)  # (b, n, d)

        # `train` and the grid decide shapes and branches, so remat must not trace them
        block = nn.remat(XCABlock, static_argnums=(2, 3)) if self.remat else XCABlock
        hidden = []
        for i in range(self.depth):
            x = block(
                self.num_heads,
                self.eta,
                self.drop_path,
                self.bn_group,
                self.dtype,
                name=f"blocks_{i}",
            )(x, (h, w), train)
            hidden.append(x)

        cls_token = self.param("cls_token", linear_init, (1, 1, d))
        cls_token = jnp.broadcast_to(cls_token.astype(x.dtype), (b, 1, d))
        z = jnp.concatenate([cls_token, x], axis=1)  # (b, 1 + n, d)
        for i in range(2):
            z = ClassAttentionBlock(
                self.num_heads,
                self.eta,
                self.tokens_norm,
                self.dtype,
                name=f"cls_attn_blocks_{i}",
            )(z)
        z = LayerNorm(name="norm")(z)  # float32 from here on
        logits = classify(
            z[:, 0],
            self.num_classes,
            name="head",
            init=linear_init,
            bias_init=nn.initializers.zeros,
        )
        return Outputs(logits=logits, features=z, hidden=tuple(hidden))


class ConvStem(nn.Module):
    """3x3 convolutions with BatchNorm, GELU between them, doubling up to `dim`."""

    dim: int
    strides: tuple[int, ...]
    bn_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x: Inputs, train: bool) -> Float[AnyArray, "b i j d"]:
        """(b, h, w, 3) to (b, h / patch, w / patch, dim)."""
        last = len(self.strides) - 1
        for i, stride in enumerate(self.strides):
            width = self.dim // 2 ** (last - i)
            layer = partial(conv, stride=stride, init=torch_conv_init)
            x = layer(width, 3, self.dtype, name=f"conv{i}")(x)
            x = BatchNorm(self.bn_group, self.dtype, name=f"bn{i}")(x, train=train)
            x = gelu(x) if i < last else x
        return x


class XCABlock(nn.Module):
    """Cross-covariance attention, local patch interaction, MLP; numbered 1, 3, 2."""

    num_heads: int
    eta: float
    drop_path: float
    bn_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens, grid: tuple[int, int], train: bool) -> Tokens:
        """Tokens of a grid (h, w), row by row."""
        dim = x.shape[-1]
        norm = partial(LayerNorm, dtype=self.dtype)

        def add(x, i, branch):
            gamma = self.param(f"gamma{i}", nn.initializers.constant(self.eta), (dim,))
            branch = branch * gamma.astype(self.dtype)
            x = x + DropPath(self.drop_path)(branch, train=train)
            return materialize(x, gamma)

        attention = XCA(self.num_heads, self.dtype, name="attn")
        x = add(x, 1, attention(norm(name="norm1")(x)))
        local = LPI(self.bn_group, self.dtype, name="local_mp")
        x = add(x, 3, local(norm(name="norm3")(x), grid, train))
        return add(x, 2, Mlp(self.dtype, name="mlp")(norm(name="norm2")(x)))


class XCA(nn.Module):
    """Attention over channels: softmax of the d x d correlation of queries and keys."""

    num_heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Cost linear in n: the attention matrix of a head is (d/h, d/h)."""
        b, n, d = x.shape
        qkv = dense(3 * d, self.dtype, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, n, 3, self.num_heads, -1), 2, 0)
        temperature = self.param(
            "temperature", nn.initializers.ones, (self.num_heads, 1, 1)
        )

        # q and k have unit length over tokens. Dividing their d x d products instead
        # saves two passes over (b, n, d).
        products = jnp.einsum(
            "bnhc,bnhe->bhce", q, k, preferred_element_type=jnp.float32
        )
        products *= _inverse_length(q)[..., :, None] * _inverse_length(k)[..., None, :]
        attention = nn.softmax(products * temperature).astype(self.dtype)
        x = jnp.einsum("bhce,bnhe->bnhc", attention, v).reshape(b, n, d)
        return dense(d, self.dtype, name="proj")(x)


def _inverse_length(x):
    """(b, n, h, c) -> (b, h, c): one over the norm along tokens."""
    square = jnp.square(x.astype(jnp.float32)).sum(1)
    return lax.rsqrt(jnp.maximum(square, NORM_EPS**2))


class LPI(nn.Module):
    """Local patch interaction: depthwise conv, GELU, then BatchNorm, depthwise conv."""

    bn_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens, grid: tuple[int, int], train: bool) -> Tokens:
        """Mixes each token with its eight neighbours, twice."""
        b, n, d = x.shape
        x = x.reshape(b, *grid, d)  # (b, h, w, d)
        x = gelu(DepthwiseConv3x3(self.dtype, name="conv1")(x))
        x = BatchNorm(self.bn_group, self.dtype, name="bn")(x, train=train)
        return DepthwiseConv3x3(self.dtype, name="conv2")(x).reshape(b, n, d)


class ClassAttentionBlock(nn.Module):
    """Attention from the class token only, as published.

    Three things that look like slips are part of the function: patches are added
    their own LayerNorm, the second residual starts after its norm, and patches are
    doubled.
    """

    num_heads: int
    eta: float
    tokens_norm: bool
    dtype: Any

    @nn.compact
    def __call__(self, z: Tokens) -> Tokens:
        """Class token first."""
        d = z.shape[-1]
        gamma1, gamma2 = (
            self.param(name, nn.initializers.constant(self.eta), (d,)).astype(z.dtype)
            for name in ("gamma1", "gamma2")
        )
        norm2 = LayerNorm(dtype=self.dtype, name="norm2")

        z1 = LayerNorm(dtype=self.dtype, name="norm1")(z)
        cls = ClassAttention(self.num_heads, self.dtype, name="attn")(z1)
        z = z + gamma1 * jnp.concatenate([cls, z1[:, 1:]], axis=1)
        if self.tokens_norm:
            z = norm2(z)
        else:
            z = jnp.concatenate([norm2(z[:, :1]), z[:, 1:]], axis=1)
        cls = gamma2 * Mlp(self.dtype, name="mlp")(z[:, :1])
        return z + jnp.concatenate([cls, z[:, 1:]], axis=1)
