from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import robustvit as rv
from robustvit.interop.adapt import fitted, inflate, resize_patches
from robustvit.models.positions import resize_positions
from tests.interop.test_load import random_state, tiny

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "resizing.npz")


@pytest.mark.parametrize("method", ["antialias", "bicubic", "dinov2", "bilinear"])
@pytest.mark.parametrize("grid", [(4, 4), (12, 12), (3, 9)])
def test_positions_are_resized_as_each_publisher_does(method, grid):
    name = {(4, 4): "smaller", (12, 12): "larger", (3, 9): "oblong"}[grid]
    ours = resize_positions(GOLDEN["table"], grid, method)
    np.testing.assert_allclose(ours, GOLDEN[f"{method}/{name}"], atol=1e-5)


def test_an_unknown_way_of_resizing_is_told():
    with pytest.raises(ValueError, match="'nearest' is not one of antialias, bicubic"):
        resize_positions(GOLDEN["table"], (4, 4), "nearest")


@pytest.mark.parametrize("size", [4, 12])
def test_patches_are_resized_as_timm_does(size):
    ours = resize_patches(GOLDEN["patches"], (size, size))
    np.testing.assert_allclose(ours, GOLDEN[f"patches/{size}"], atol=1e-4)


def test_larger_patches_see_resized_patches_alike():
    """Exactly so when growing: the resized patch then holds all of the old one."""
    patch = np.random.default_rng(1).normal(size=(8, 8, 3)).astype(np.float32)
    larger = jax.image.resize(patch, (12, 12, 3), "bicubic", antialias=True)
    kernel = GOLDEN["patches"]
    before = np.einsum("oihw,hwi->o", kernel, patch)
    after = np.einsum("oihw,hwi->o", resize_patches(kernel, (12, 12)), larger)
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_an_inflated_layer_sees_repeated_images_alike():
    kernel = GOLDEN["patches"]
    wide = inflate(kernel, 4)
    assert wide.shape == (4, 12, 8, 8)
    image = np.random.default_rng(1).normal(size=(3, 8, 8)).astype(np.float32)
    before = np.einsum("oihw,ihw->o", kernel, image)
    after = np.einsum("oihw,ihw->o", wide, np.tile(image, (4, 1, 1)))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    assert fitted("conv1.weight", kernel, (4, 12, 8, 8), None).shape == (4, 12, 8, 8)
    assert fitted("conv1.weight", kernel, (4, 7, 8, 8), None) is None
    assert fitted("conv1.weight", kernel, (4, 3, 4, 4), None) is None  # not a patch


@pytest.mark.parametrize("family", ["vit", "deit3", "cait"])
def test_another_image_size_on_loading_is_the_same_as_in_the_forward(family):
    native = tiny(family)
    larger = native.clone(image_size=32)
    state = random_state(native)
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    ours = larger.apply(rv.load_torch(larger, state), images).logits
    flexible = native.apply(rv.load_torch(native, state), images).logits
    np.testing.assert_allclose(ours, flexible, rtol=1e-4, atol=1e-4)


def test_another_patch_size_keeps_everything_else():
    native = tiny("vit")
    state = random_state(native)
    small = native.clone(patch_size=4, image_size=8)  # the same grid
    flat = traverse_util.flatten_dict(rv.load_torch(small, state)["params"], sep="/")
    kernel = flat.pop("patch_embed/proj/kernel")
    assert kernel.shape == (4, 4, 3, 16)
    old = traverse_util.flatten_dict(rv.load_torch(native, state)["params"], sep="/")
    for key, leaf in flat.items():
        np.testing.assert_array_equal(leaf, old[key])


def test_images_that_patches_do_not_divide_are_told():
    with pytest.raises(ValueError, match="20x16 do not divide into patches of 8x8"):
        tiny("vit").init(jax.random.key(0), jnp.zeros((1, 20, 16, 3)))
