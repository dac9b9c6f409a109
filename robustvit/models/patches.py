"""From an image to one token per patch: a linear map of each, or a few convolutions.

References: Dosovitskiy et al. 2021, arXiv:2010.11929; the convolutional stem is that of
Singh, Croce, Hein 2023, arXiv:2303.01870.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn

from robustvit.models.conv_gradient import conv_general_dilated
from robustvit.models.convolutions import MapsOut, conv
from robustvit.models.layers import (
    LN_EPS,
    LayerNorm,
    gelu,
    torch_bias_init,
    torch_conv_init,
)
from robustvit.types import Inputs, Tokens


class PatchEmbed(nn.Module):
    """A linear map of each patch, as a convolution; or a stem, where it has widths."""

    dim: int
    patch_size: int
    use_bias: bool
    dtype: Any
    stem_widths: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Inputs) -> Tokens:
        """(b, h, w, 3) to (b, n, d), row by row."""
        b, h, w, channels = x.shape
        patch = self.patch_size
        if h % patch or w % patch:
            raise ValueError(
                f"images of {h}x{w} do not divide into patches of {patch}x{patch}"
            )
        if self.stem_widths:
            x = ConvStem(self.stem_widths, self.dim, self.dtype, name="proj")(x)
            return x.reshape(b, -1, self.dim)
        x = nn.Conv(
            self.dim,
            (patch, patch),
            (patch, patch),
            padding="VALID",
            use_bias=self.use_bias,
            kernel_init=torch_conv_init,
            bias_init=torch_bias_init(patch * patch * channels),
            dtype=self.dtype,
            conv_general_dilated=conv_general_dilated,
            name="proj",
        )(x)
        return x.reshape(b, -1, self.dim)


class ConvStem(nn.Module):
    """3x3 convolutions at stride 2, each with a norm and GELU; then one of 1x1."""

    widths: tuple[int, ...]
    dim: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Inputs) -> MapsOut:
        """(b, h, w, 3) to (b, h / 2^n, w / 2^n, d), with n widths."""
        plain = partial(conv, dtype=self.dtype, bias=True, init=torch_conv_init)
        for i, width in enumerate(self.widths):
            x = plain(width, 3, stride=2, name=f"stem_{3 * i}")(x)
            norm = LayerNorm(LN_EPS, dtype=self.dtype, name=f"stem_{3 * i + 1}")
            x = gelu(norm(x))
        last = f"stem_{3 * len(self.widths)}"
        return plain(self.dim, 1, name=last)(x)
