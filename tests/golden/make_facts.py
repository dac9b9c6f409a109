"""Writes robustvit/models/facts.json: parameters, GMACs, image size, weights by name.

    python tests/golden/make_facts.py       # needs timm 1.0 (and torch), for hub names

GMACs are half the FLOPs that XLA counts in the unoptimised forward pass of one image.
"""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import timm

import robustvit.models
from robustvit.models import MODELS, create_model

OUTPUT = Path(robustvit.models.__file__).parent / "facts.json"
RECIPE = "github.com/dedeswim/vits-robustness-torch"
ROBUSTBENCH = "github.com/RobustBench/robustbench"
# Published outside timm's hub; the first pattern that a name starts with.
ELSEWHERE = {
    "dinov2_": "github.com/facebookresearch/dinov2",
    "xcit_small_12_p": RECIPE,
    "xcit_medium_12_p": RECIPE,
    "xcit_large_12_p": RECIPE,
    "cait_s12": RECIPE,
    "wide_resnet_": ROBUSTBENCH,
    "preact_resnet": ROBUSTBENCH,
    "cifar_resnet": "github.com/akamaster/pytorch_resnet_cifar10",
    "resnet50_gelu_adv": "github.com/ytongbai/ViTs-vs-CNNs",
}


def facts(name):
    model = create_model(name)
    # GMACs are of the size it was published for: the field, or the number in the name.
    size = getattr(model, "image_size", None) or image_size(name)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    forward = jax.jit(partial(model.apply, train=False))
    flops = forward.lower(variables, images).cost_analysis()["flops"]
    params = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return {
        "params": params,
        "gmacs": round(flops / 2e9, 3),
        "image_size": size,
        "weights": weights(name),
    }


def image_size(name):
    small = ("_32", "cifar_resnet", "wide_resnet_", "preact_resnet")
    return 32 if name.endswith("_32") or name.startswith(small[1:]) else 224


def weights(name):
    found = [n for n in timm.list_pretrained() if n.split(".")[0] == name or n == name]
    config = timm.get_pretrained_cfg(name) if found else None
    hub = f"huggingface.co/{config.hf_hub_id}" if config and config.hf_hub_id else ""
    places = [place for start, place in ELSEWHERE.items() if name.startswith(start)]
    return ", ".join([*filter(None, [hub]), *places[:1]])


if __name__ == "__main__":
    table = {}
    for name in MODELS:
        table[name] = facts(name)
        print(name, table[name], flush=True)
    rows = [f"{json.dumps(n)}: {json.dumps(row)}" for n, row in table.items()]
    OUTPUT.write_text("{\n" + ",\n".join(rows) + "\n}\n")
