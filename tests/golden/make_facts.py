"""Writes robustvit/models/facts.json: parameters, GMACs, image size, weights by name.

    python tests/golden/make_facts.py [name ...]    # needs timm 1.0 (and torch)

With names, only those rows are made anew. GMACs are half the FLOPs that XLA counts in
the unoptimised forward pass of one image.
"""

import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import timm

import robustvit.models
from robustvit.models import (
    ALIASES,
    MODELS,
    CifarResNet,
    PreActResNet,
    WideResNet,
    create_model,
)

OUTPUT = Path(robustvit.models.__file__).parent / "facts.json"
RECIPE = "github.com/dedeswim/vits-robustness-torch"
AKAMASTER = "github.com/akamaster/pytorch_resnet_cifar10"
ROBUSTBENCH = "github.com/RobustBench/robustbench"
# Published outside timm's hub; the first pattern that a name starts with.
PRETRAINED = timm.list_pretrained()
ELSEWHERE = {
    "dinov2_": "github.com/facebookresearch/dinov2",
    "xcit_small_12_p16": RECIPE,
    "xcit_medium_12_p16": RECIPE,
    "xcit_large_12_p16": RECIPE,
    "xcit_small_12_p4": RECIPE,
    "xcit_medium_12_p4": RECIPE,
    "xcit_large_12_p4": RECIPE,
    "debenedetti": RECIPE,
    "cait_s12": RECIPE,
    "wide_resnet_": ROBUSTBENCH,
    "preact_resnet": ROBUSTBENCH,
    "cifar_resnet": AKAMASTER,
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
    if name.startswith("debenedetti"):
        return 32 if "cifar" in name else 224
    small = type(create_model(name)) in (CifarResNet, PreActResNet, WideResNet)
    return 32 if small or name.endswith("_32") else 224


def weights(name):
    name = ALIASES.get(name, name)
    found = [n for n in PRETRAINED if name in (n, n.split(".")[0])]
    config = timm.get_pretrained_cfg(name) if found else None
    hub = f"huggingface.co/{config.hf_hub_id}" if config and config.hf_hub_id else ""
    places = [place for start, place in ELSEWHERE.items() if name.startswith(start)]
    return ", ".join([*filter(None, [hub]), *places[:1]])


if __name__ == "__main__":
    table = json.loads(OUTPUT.read_text()) if sys.argv[1:] else {}
    for name in sys.argv[1:] or MODELS:
        table[name] = facts(name)
        print(name, table[name], flush=True)
    rows = [f"{json.dumps(n)}: {json.dumps(table[n])}" for n in MODELS if n in table]
    OUTPUT.write_text("{\n" + ",\n".join(rows) + "\n}\n")
