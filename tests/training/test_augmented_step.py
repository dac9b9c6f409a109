"""Augmentation and mixing in the train step: order, keys, devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from robustvit.objectives import standard
from robustvit.training.step import augmented
from tests.tiny import TinyNet
from tests.training.test_step import batch_at, run

KEY = jax.random.key(4)


def float_batch(**more):
    batch = batch_at(0)
    return {**batch, "image": batch["image"] / np.float32(255), **more}


def brighter(images, keys):
    """A visible augmentation with a number of its own for every key."""
    shift = jax.vmap(jax.random.uniform)(keys)
    return jnp.clip(images + shift[:, None, None, None], 0, 1)


def test_no_augmentation_is_no_change():
    batch = float_batch()
    assert augmented(batch, KEY, None, None) is batch


def test_the_first_view_is_left_alone():
    view = jnp.arange(8) % 3
    same = jnp.ones(8, int)
    got = augmented(float_batch(view=view, index=same), KEY, brighter, None)["image"]
    before = float_batch()["image"]
    changed = (got != before).any((1, 2, 3))
    np.testing.assert_array_equal(changed, view > 0)
    # views differ in what is done to them, though they are of one image
    white = np.asarray(got.mean((1, 2, 3)) - before.mean((1, 2, 3)))
    assert abs(white[1] - white[2]) > 1e-3


def test_mixing_comes_after_the_augmentation():
    seen = []

    def mix(images, labels, key):
        seen.append((images, labels))
        return images[::-1], jax.nn.one_hot(labels, 5)

    batch = augmented(float_batch(), KEY, brighter, mix)
    images, labels = seen[0]
    np.testing.assert_array_equal(batch["image"], images[::-1])
    np.testing.assert_array_equal(labels, float_batch()["label"])
    assert (images != float_batch()["image"]).any((1, 2, 3)).all()
    assert batch["target"].shape == (8, 5)


def test_one_and_four_devices_agree():
    objective = standard(TinyNet(bn_group=4))
    calls = []

    def mix(images, labels, key):
        """A cheap MixUp: drawing from Beta is what takes long to compile."""
        calls.append(images.shape)
        share, one_hot = jax.random.uniform(key), jax.nn.one_hot(labels, 5)
        return tuple(share * x + (1 - share) * x[::-1] for x in (images, one_hot))

    one, metrics_one = run(objective, 3, devices=1, mixing=mix)
    four, metrics_four = run(objective, 3, devices=4, mixing=mix)
    assert set(calls) == {(8, 32, 32, 3)}  # the whole batch, on any number of devices
    # Sums in another order.
    chex.assert_trees_all_close(one.params, four.params, atol=5e-6, rtol=1e-4)
    chex.assert_trees_all_close(metrics_one, metrics_four, rtol=1e-4, atol=1e-5)
