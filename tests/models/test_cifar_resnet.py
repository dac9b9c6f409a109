"""A published network on the published test set, to the last image."""

from pathlib import Path

import jax
import numpy as np
import pytest

import robustvit as rv
from robustvit.data import images
from robustvit.data.sources import open_source

ORACLES = Path(__file__).parents[3] / "shared" / "oracles"
BATCH = 1000


@pytest.fixture(scope="module")
def cifar_test_images(tfds_dir):
    source = open_source("cifar10", "test", data_dir=tfds_dir)
    examples = [source[i] for i in range(len(source))]
    pixels = np.stack([images.decode(example["image"]) for example in examples])
    return pixels, np.array([example["label"] for example in examples])


def test_published_weights_classify_as_published(cifar_test_images):
    if not ORACLES.is_dir():
        pytest.skip("needs the project's weights in ../shared/oracles")
    model = rv.create_model("resnet20")
    variables = rv.load_torch(model, ORACLES / "resnet20.th")  # a legacy pickle
    again = rv.load_torch(model, dict(np.load(ORACLES / "weights_resnet20.npz")))
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))
    predict = jax.jit(lambda x: model.apply(variables, x / 255.0).logits.argmax(1))

    pixels, labels = cifar_test_images
    assert len(pixels) == 10_000
    correct = 0
    for start in range(0, len(pixels), BATCH):
        part = slice(start, start + BATCH)
        correct += (predict(pixels[part]) == labels[part]).sum()
    assert correct == 8_103  # as in PyTorch
