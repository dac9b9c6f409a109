"""The networks of `benchmarks.autoattack`, with the same weights in torch and in JAX.

network = NETWORKS["cnn"](Path("weights_cnn_relu.npz"))
network.jax(images)                   # images (b, h, w, 3) to logits (b, k)
network.torch(images)                 # images (b, 3, h, w) to logits (b, k)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F

import robustvit as rv
from robustvit.losses import cross_entropy

WIDTH = 512  # of the perceptron's two hidden layers
EPOCHS, BATCH_SIZE, LR = 8, 128, 1e-3


class Network(NamedTuple):
    """One network on both sides, and the linf eps that about a third withstand."""

    jax: Any
    torch: Callable[[torch.Tensor], torch.Tensor]
    eps: str


def cnn(path: Path, train: Any) -> Network:
    """Six convolutions with biases, mean over positions, one linear layer."""
    weights = dict(np.load(path))
    kernels = {k: v.transpose(2, 3, 1, 0) for k, v in weights.items() if v.ndim == 4}

    def with_jax(weights, x):
        x = (x - 0.5) / 0.25
        for i in range(6):
            x = jax.lax.conv_general_dilated(
                x, weights[f"convs.{i}.weight"], (1 + (i in (2, 4)),) * 2,
                ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip
            x = jax.nn.relu(x + weights[f"convs.{i}.bias"])
        return x.mean((1, 2)) @ weights["head.weight"].T + weights["head.bias"]

    tensors = _tensors(weights)

    def with_torch(x):
        x = (x - 0.5) / 0.25
        for i in range(6):
            kernel, bias = tensors[f"convs.{i}.weight"], tensors[f"convs.{i}.bias"]
            x = F.relu(F.conv2d(x, kernel, bias, 1 + (i in (2, 4)), padding=1))
        return F.linear(x.mean((2, 3)), tensors["head.weight"], tensors["head.bias"])

    partial = jax.tree_util.Partial(with_jax, {**weights, **kernels})
    return Network(partial, with_torch, "8/255")


def resnet20(path: Path, train: Any) -> Network:
    """The CIFAR-10 ResNet-20 of He et al., with its input normalisation."""
    model = rv.create_model("cifar_resnet20", num_classes=10)
    variables = rv.load_torch(model, str(path))
    state = torch.load(path, map_location="cpu")["state_dict"]
    w = {k.removeprefix("module."): v.detach() for k, v in state.items()}
    mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)

    def norm(x, name):
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(w[f"{name}.{key}"] for key in keys), False)

    def block(x, name, stride):
        y = F.conv2d(x, w[f"{name}.conv1.weight"], stride=stride, padding=1)
        y = F.conv2d(
            F.relu(norm(y, f"{name}.bn1")), w[f"{name}.conv2.weight"], padding=1
        )
        if stride == 2:
            pad = y.shape[1] // 4
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
        return F.relu(x + norm(y, f"{name}.bn2"))

    def with_torch(x):
        x = F.conv2d((x - mean) / std, w["conv1.weight"], padding=1)
        x = F.relu(norm(x, "bn1"))
        for stage in (1, 2, 3):
            for i in range(3):
                x = block(x, f"layer{stage}.{i}", 1 + (stage > 1 and i == 0))
        return F.linear(x.mean((2, 3)), w["linear.weight"], w["linear.bias"])

    return Network(rv.logits_fn(model, variables), with_torch, "0.5/255")


def mlp(path: Path | None, train: tuple[np.ndarray, np.ndarray]) -> Network:
    """A perceptron with two hidden layers, trained here with FGSM at 8/255."""
    weights = _train_mlp(*train)
    tensors = [(torch.tensor(np.asarray(a)), torch.tensor(np.asarray(b)))
               for a, b in weights]  # fmt: skip

    def with_torch(x):
        x = (x - 0.5).permute(0, 2, 3, 1).flatten(1)
        for i, (kernel, bias) in enumerate(tensors):
            x = x @ kernel + bias
            x = F.relu(x) if i < 2 else x
        return x

    return Network(jax.tree_util.Partial(_mlp, weights), with_torch, "4/255")


def _mlp(weights, x):
    x = (x - 0.5).reshape(len(x), -1)
    for i, (kernel, bias) in enumerate(weights):
        x = x @ kernel + bias
        x = jax.nn.relu(x) if i < 2 else x
    return x


def _train_mlp(images, labels):
    sizes = (images[0].size, WIDTH, WIDTH, int(labels.max()) + 1)
    keys = jax.random.split(jax.random.key(0), 3)
    weights = [
        (jax.random.normal(key, (n, m)) * (2 / n) ** 0.5, jnp.zeros(m))
        for key, n, m in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    steps = len(images) // BATCH_SIZE
    tx = optax.adamw(optax.cosine_decay_schedule(LR, EPOCHS * steps), weight_decay=1e-2)
    threat = rv.ThreatModel("linf", 8 / 255)

    def loss(weights, x, y):
        return cross_entropy(_mlp(weights, x), y).mean()

    @jax.jit
    def step(weights, state, x, y, key):
        keys = jax.random.split(key, len(x))
        start = threat.random_start(x, keys)
        gradient = jax.grad(loss, 1)(weights, start, y)
        x_adv = threat.project(start + 10 / 255 * jnp.sign(gradient), x)
        updates, state = tx.update(jax.grad(loss)(weights, x_adv, y), state, weights)
        return optax.apply_updates(weights, updates), state

    state, rng = tx.init(weights), np.random.default_rng(0)
    for epoch in range(EPOCHS):
        order = rng.permutation(len(images))
        for i in range(steps):
            rows = order[i * BATCH_SIZE : (i + 1) * BATCH_SIZE]
            key = jax.random.key(epoch * steps + i)
            weights, state = step(weights, state, images[rows], labels[rows], key)
    return weights


def _tensors(weights):
    return {name: torch.from_numpy(value) for name, value in weights.items()}


NETWORKS = {"cnn": cnn, "resnet20": resnet20, "mlp": mlp}
