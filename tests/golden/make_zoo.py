"""Writes <family>.npz: what PyTorch references compute for the cases of zoo_cases.py.

    python -m tests.golden.make_zoo [family ...]

from the repository's root, in an environment with torch and timm (the committed files:
torch 2.13.0 on CPU, timm 1.0.31, in float64). Needs no weights and no network: weights
are formulas of their names. Per case there are the keys of its state dict and, in
evaluation and in training mode, logits, the shape and a sample of the features, a
sample of the gradient with respect to the images, and the running statistics that one
BatchNorm has afterwards.
"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch

from tests.golden.torch_references import REFERENCES
from tests.models.zoo_cases import (
    CASES,
    MEAN,
    NUM_CLASSES,
    STD,
    fill,
    images,
    sample,
    weights,
)


def build(case):
    """The reference with its formula weights, in float64."""
    arguments = {"num_classes": NUM_CLASSES, **case.arguments}
    if case.reference in REFERENCES:
        model = REFERENCES[case.reference](**arguments)
    else:
        model = timm.create_model(case.reference, pretrained=False, **arguments)
    model = model.double()
    state = {
        key: torch.from_numpy(fill(key, tuple(tensor.shape)))
        for key, tensor in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    missing, _ = model.load_state_dict(state, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return model, sorted(state)


def run(model, case):
    """(name, array) of what is compared, in the mode that the model is in."""
    x = torch.from_numpy(images(case)).requires_grad_()
    mean, std = torch.tensor([MEAN, STD], dtype=torch.float64)
    normalized = ((x - mean) / std).permute(0, 3, 1, 2)
    captured = []
    logits = _with_features(model, normalized, captured)
    (logits * torch.from_numpy(weights(case.batch))).sum().backward()
    features = captured[0].detach()
    if features.ndim == 4 and getattr(model, "output_fmt", "NCHW") == "NCHW":
        features = features.permute(0, 2, 3, 1)
    yield "logits", logits.detach()
    yield "features", sample(features)
    yield "features_shape", np.array(features.shape)
    yield "gradient", sample(x.grad)


def _with_features(model, x, captured):
    """Logits; also keeps the features, in one pass: two would move BatchNorm twice."""
    original = model.forward_features

    def forward_features(x, **unused):  # timm's ViT passes masks that are None
        assert not any(unused.values())
        captured.append(original(x))
        return captured[-1]

    model.forward_features = forward_features
    try:
        return model(x)
    finally:
        model.forward_features = original


def last_batch_norm(model):
    """(key, tensor) of the running statistics that come last in the state dict."""
    state = model.state_dict()
    means = [key for key in state if key.endswith("running_mean")]
    for mean in means[-1:]:
        for key in (mean, mean.replace("running_mean", "running_var")):
            yield key, state[key]


def main(families):
    for family in families:
        arrays = {}
        for case in (case for case in CASES if case.family == family):
            model, keys = build(case)
            arrays[f"{case.name}/keys"] = np.array(keys)
            for mode in ("eval", "train"):
                model.train(mode == "train")
                for name, array in run(model, case):
                    arrays[f"{case.name}/{mode}/{name}"] = np.asarray(array)
            for key, array in last_batch_norm(model):
                arrays[f"{case.name}/statistics/{key}"] = np.asarray(array)
        arrays = {
            name: array.astype(np.float32) if array.dtype == np.float64 else array
            for name, array in arrays.items()
        }
        file = Path(__file__).parent / f"{family.lower()}.npz"
        np.savez_compressed(file, **arrays)
        print(f"{file.name}: {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(sys.argv[1:] or dict.fromkeys(case.family for case in CASES))
