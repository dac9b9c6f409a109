"""A training that collapses: FGSM without a random start, its step beyond eps.

CIFAR-10's animals against its machines, 16 pixels a side, eps up to 16/255 within two
epochs. For 500 steps the network learns to be robust; then it learns to mask the
gradient, its loss falls, and PGD-10 finds it defenceless.
"""

import io
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import optax
from PIL import Image

from robustvit.attacks import fgsm
from robustvit.data.sources import open_source
from robustvit.objectives import adversarial
from robustvit.threat import ThreatModel
from robustvit.training.loop import fit
from robustvit.training.settings import Settings, TrainData
from robustvit.training.watchdog import Watchdog
from robustvit.types import Outputs

THREAT = ThreatModel("linf", 16 / 255)
ATTACK = fgsm(1.5 * 16 / 255, random_start=False)
MACHINES = (0, 1, 8, 9)
PER_EPOCH, BATCH = 50, 128
RAMP_EPOCHS = 2


def threat_at(epoch):
    """Without the ramp, the network starts as a constant."""
    return ThreatModel("linf", np.float32(min(epoch / RAMP_EPOCHS, 1.0) * 16 / 255))


class PatchNet(nn.Module):
    """Maps of patches of patches, then two layers: all of it matrix products."""

    width: int = 64

    @nn.compact
    def __call__(self, images, *, train=False):
        dense = partial(nn.Dense, kernel_init=nn.initializers.he_normal())
        x = (images - 0.5) * 4
        for width in (self.width, 2 * self.width):
            b, h, w, c = x.shape
            x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
            x = nn.relu(dense(width)(x.reshape(b, h // 2, w // 2, 4 * c)))
        x = nn.relu(dense(4 * self.width)(x.reshape(len(x), -1)))
        return Outputs(logits=dense(2)(x), features=x, hidden=(x,))


def cifar(tfds_dir, n):
    """Images (n, 16, 16, 3) uint8, and whether each shows a machine."""
    source = open_source("cifar10", f"train[:{n}]", data_dir=tfds_dir)
    examples = [source[i] for i in range(n)]

    def pixels(raw):
        if isinstance(raw, bytes):
            return np.asarray(Image.open(io.BytesIO(raw)))
        return np.asarray(raw)

    images = np.stack([pixels(e["image"]) for e in examples])
    images = images.reshape(n, 16, 2, 16, 2, 3).mean((2, 4)).astype(np.uint8)
    labels = np.isin([e["label"] for e in examples], MACHINES)
    return images, labels.astype(np.int32)


def in_memory(images, labels, held_out=512):
    """The last of the images are held out; batches are drawn anew at each step."""

    def batch(rows):
        return {
            "image": images[rows],
            "label": labels[rows],
            "index": rows.astype(np.int32),
            "mask": np.ones(len(rows), bool),
        }

    train = len(images) - held_out

    def batches(step):
        while True:
            yield batch(np.random.default_rng(step).choice(train, BATCH, False))
            step += 1

    return TrainData(
        train=batches,
        val=lambda: iter([batch(np.arange(train, len(images)))]),
        steps_per_epoch=PER_EPOCH,
        batch_size=BATCH,
        image_size=16,
    )


def train(data, workdir, *, epochs, watchdog=None, lr=3e-3):
    model = PatchNet()

    def rebuild(attack):
        return adversarial(model, attack, label_smoothing=0.0)

    return fit(
        model,
        rebuild(ATTACK),
        optax.adam(lr),
        data=data,
        validate_with=ATTACK,
        threat=THREAT,
        threat_at=threat_at,
        lr_at=lambda _: lr,
        settings=Settings(epochs=epochs, log_every=10, save_every=50),
        workdir=workdir,
        key=jax.random.key(0),
        watchdog=watchdog and Watchdog(ATTACK, rebuild, **watchdog),
    )
