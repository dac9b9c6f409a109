"""Small networks on made-up images, of which about half are robust."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax

import robustvit as rv
from robustvit.models import create_model
from tests.tiny import TinyNet

N, SIDE, K = 48, 6, 5
SHAPE = (SIDE, SIDE, 3)
EPS = 6 / 255
RNG = np.random.default_rng(0)
CENTRES = RNG.uniform(0.45, 0.55, size=(K, *SHAPE)).astype(np.float32)
LABELS = np.arange(N) % K
IMAGES = np.clip(
    CENTRES[LABELS] + RNG.normal(size=(N, *SHAPE)) * 0.03, 0, 1
).astype(np.float32)  # fmt: skip


def init_mlp(width=32, seed=0):
    rng = np.random.default_rng(seed)
    n = int(np.prod(SHAPE))
    return {
        "first": rng.normal(size=(n, width)).astype(np.float32) / np.sqrt(n),
        "last": rng.normal(size=(width, K)).astype(np.float32) / np.sqrt(width),
    }


def mlp(params, x, activation=jnp.tanh):
    hidden = (x.reshape(len(x), -1) - 0.5) * 5 @ params["first"]
    return activation(hidden) @ params["last"]


def init_cnn(seed=0):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(3, 3, 3, 8)).astype(np.float32) / 3
    last = rng.normal(size=(SIDE * SIDE * 8, K)).astype(np.float32) / 15
    return {"first": first, "last": last}


def cnn(params, x):
    x = jax.lax.conv_general_dilated(
        (x - 0.5) * 5, params["first"], (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    return jax.nn.relu(x).reshape(len(x), -1) @ params["last"]


def train(network, params, eps=0.0, steps=60):
    """Adam, on images that an FGSM step has moved by `eps`."""
    tx = optax.adam(1e-2)

    def loss(params, x):
        logits = network(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

    @jax.jit
    def step(params, state):
        x = jnp.clip(IMAGES + eps * jnp.sign(jax.grad(loss, 1)(params, IMAGES)), 0, 1)
        updates, state = tx.update(jax.grad(loss)(params, x), state)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return jax.device_get(params)


@cache
def trained(name="tanh", eps=0.0, seed=0):
    """Images to logits of a trained network, by name."""
    if name == "cnn":
        network, params = cnn, init_cnn(seed)
    else:
        activation = {"tanh": jnp.tanh, "relu": jax.nn.relu, "gelu": jax.nn.gelu}[name]
        network = lambda p, x: mlp(p, x, activation)  # noqa: E731
        params = init_mlp(seed=seed)
    params = train(network, params, eps)
    return lambda x: network(params, x)


def linear(x):
    flat = (jnp.asarray(CENTRES) - CENTRES.mean(0)).reshape(K, -1)
    return (x - CENTRES.mean(0)).reshape(len(x), -1) @ flat.T * 5


def tiny_batch_norm(train=False):
    """Convolution and BatchNorm with running statistics; or with a batch's own."""
    model = TinyNet(dropout=0.0)
    variables = model.init(jax.random.key(0), IMAGES[:1])

    def forward(x):
        if not train:
            return model.apply(variables, x).logits
        return model.apply(variables, x, train=True, mutable=["batch_stats"])[0].logits

    return forward


def xcit():
    """A shrunk model of the library, as `logits_fn` makes a forward of it."""
    model = create_model(
        "xcit_nano_12_p4_32", num_classes=K, dim=16, depth=1, num_heads=2
    )
    return rv.logits_fn(model, model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 3))))
