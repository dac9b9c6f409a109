"""Weights from the Hugging Face hub, with the model that they belong to.

model, variables = load_hf("timm/vit_base_patch16_224.augreg_in21k")
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robustvit.interop.load import Variables, load_torch
from robustvit.lookup import nearest
from robustvit.models import MODELS, create_model

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def load_hf(repo: str, **overrides: Any) -> tuple[Any, Variables]:
    """Model and variables of a repository that timm wrote.

    Classes and input normalisation come from the repository's config.json, unless an
    override says otherwise; a `num_classes` that differs starts a fresh head.

    Args:
      repo: like "timm/xcit_small_12_p16_224.fb_in1k".
      overrides: fields of the model, as for `create_model`.

    Raises:
      ModuleNotFoundError: without huggingface_hub (`pip install 'robustvit[hub]'`).
      ValueError: for an architecture that is not here, or a repository without weights.
      OSError: without a network, if the files are not in the hub's cache.
    """
    config = json.loads(Path(_download(repo, "config.json")).read_text())
    fields = model_fields(config)
    model = create_model(fields.pop("name"), **{**fields, **overrides})
    new_head = model.num_classes != fields["num_classes"]
    return model, load_torch(model, weights_from_hub(repo), new_head=new_head)


def weights_from_hub(repo: str) -> str:
    """Path of the repository's weight file in the hub's cache, fetched if need be."""
    for name in WEIGHT_FILES:
        try:
            return _download(repo, name)
        except FileNotFoundError:
            continue
    raise ValueError(f"{repo} has none of {', '.join(WEIGHT_FILES)}")


def _download(repo, name):
    """Path of a file in the cache; FileNotFoundError if the repository has it not."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return huggingface_hub.hf_hub_download(repo, name)
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise ConnectionError(
            f"{name} of {repo} is not in the hub's cache, and the hub cannot be reached"
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise ValueError(f"there is no repository {repo!r} on the hub") from None
    except errors.EntryNotFoundError:
        raise FileNotFoundError(f"{repo} has no {name}") from None


def model_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Name and fields of our model, from a config.json of timm's."""
    name = config.get("architecture")
    if name not in MODELS:
        raise ValueError(
            f"the architecture {name!r} is not here: {nearest(str(name), MODELS)}"
        )
    published = config.get("pretrained_cfg", config)
    classes = config.get("num_classes", published.get("num_classes", 0))
    fields = {"name": name, "num_classes": classes}
    for key in ("mean", "std"):
        if key in published:
            fields[key] = tuple(published[key])
    return fields
