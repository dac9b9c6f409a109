"""Every published model at full size: timm's random weights in, the same logits out.

    python -m benchmarks.timm_parity [name ...]         # needs torch and timm

For each name timm (or, where timm has no such model, the reference of the golden tests)
is initialised at random, and what an initialisation leaves at 0 or 1 (norms, biases,
LayerScale, tokens, positions, running statistics) is made random, too. The weights are
imported here, one image of the native size goes through both sides in float32, and the
weights go back: to a .pth file that the reference loads with strict=True. Printed are
the largest difference of a logit over the largest logit, and whether all weights came
back to the bit. Exits with 1 if any difference is over 1e-4 or any weight differs.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import timm
import torch

import robustvit as rv
from robustvit.models import ALIASES, MODELS
from robustvit.models.facts import facts
from tests.golden.torch_references import REFERENCES

LIMIT = 1e-4
CIFAR_DEPTHS = (20, 32, 44, 56, 110)
# Names that are a reference with other arguments.
CONSTRUCTED: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18_gelu": ("resnet18", {"act_layer": "gelu"}),
    "resnet50_gelu": ("resnet50", {"act_layer": "gelu"}),
    "resnet50_gelu_adv": ("resnet50", {"act_layer": "gelu"}),
    "resnet152_gelu": ("resnet152", {"act_layer": "gelu"}),
    "resnext152_32x8d": (
        "resnext50_32x4d",
        {"layers": (3, 4, 36, 3), "cardinality": 32, "base_width": 8,
         "act_layer": "silu"},
    ),
    "resnet50_32": ("resnet50_32", {}),
    "cait_s12_224": ("cait_s24_224", {"depth": 12, "init_values": 1.0}),
    "preact_resnet18": (
        "preact_resnet", {"layers": (2, 2, 2, 2), "widths": (64, 128, 256, 512)}
    ),
    "xcit_medium_12_p16_224": ("xcit_small_12_p16_224", {"embed_dim": 512}),
    "xcit_large_12_p16_224": (
        "xcit_small_12_p16_224", {"embed_dim": 768, "num_heads": 16}
    ),
    "poolformer_m12": (
        "poolformer_norm_first",
        {"depths": (2, 2, 6, 2), "dims": (96, 192, 384, 768)},
    ),
    **{
        f"wide_resnet_{d}_{w}": ("wide_resnet", {"depth": d, "width": w})
        for d, w in ((28, 10), (34, 10), (34, 20), (70, 16))
    },
    **{f"cifar_resnet{n}": ("cifar_resnet", {"depth": n}) for n in CIFAR_DEPTHS},
    **{
        f"convnext_{size}_cvst": (
            "convnext_cvst",
            {"depths": MODELS[f"convnext_{size}_cvst"]().depths,
             "dims": MODELS[f"convnext_{size}_cvst"]().widths,
             "stem_widths": MODELS[f"convnext_{size}_cvst"]().stem_widths},
        )
        for size in ("tiny", "small", "base", "large")
    },
}  # fmt: skip


def build(name: str) -> torch.nn.Module:
    """The reference, with nothing left at a value that hides mistakes."""
    torch.manual_seed(0)
    reference, arguments = CONSTRUCTED.get(name, (name, {}))
    if reference in REFERENCES:
        classes = MODELS[name]().num_classes
        model = REFERENCES[reference](num_classes=classes, **arguments)
    else:
        model = timm.create_model(reference, **arguments)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn_like(tensor)
            if key.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim <= 1 or "token" in key or "pos_embed" in key:
                tensor.add_(0.1 * noise)
    return model.eval()


def compare(name: str) -> tuple[float, bool]:
    """Relative difference of the logits; whether the weights came back equal."""
    reference = build(name)
    model = rv.create_model(name)
    variables = rv.load_torch(model, dict(reference.state_dict()))
    size = facts()[name].image_size
    image = np.random.default_rng(0).random((1, size, size, 3), np.float32)
    forward = jax.jit(
        partial(model.apply, train=False),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    with jax.default_matmul_precision("highest"):
        ours = np.asarray(forward(variables, image).logits)
    normalized = (image - np.float32(model.mean)) / np.float32(model.std)
    with torch.no_grad():
        theirs = reference(torch.from_numpy(normalized.transpose(0, 3, 1, 2))).numpy()
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        rv.save_torch(model, variables, path)
        del variables
        back = torch.load(path, weights_only=True)
    state = reference.state_dict()
    # torch draws its own counters: of BatchNorm's, only their names can agree.
    equal = back.keys() == state.keys() and all(
        torch.equal(back[k], state[k]) for k in state if state[k].is_floating_point()
    )
    reference.load_state_dict(back, strict=True)
    return error, equal


def main(names: list[str]) -> int:
    """A line per model; 1 if any is wrong."""
    wrong = 0
    print("model | parameters | difference of logits | weights equal | seconds")
    print("---|---|---|---|---")
    for name in names:
        start = time.perf_counter()
        error, equal = compare(name)
        wrong += not (error <= LIMIT and equal)
        seconds = time.perf_counter() - start
        row = (
            name,
            f"{facts()[name].params:,}",
            f"{error:.1e}",
            equal,
            f"{seconds:.0f}",
        )
        print(*row, sep=" | ", flush=True)
        jax.clear_caches()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{len(names)} models, {wrong} wrong; peak memory {peak:.1f} GB")
    return int(wrong > 0)


def available() -> list[str]:
    """Names with a reference, the billion-parameter ones last."""
    names = [
        name
        for name in MODELS
        if name not in ALIASES
        and (name in CONSTRUCTED or timm.is_model(name.split(".")[0]))
    ]
    return sorted(names, key=lambda name: facts()[name].params)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="default: all that have a reference")
    sys.exit(main(parser.parse_args().names or available()))
