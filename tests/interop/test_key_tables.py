"""Every variable of every published model has timm's name and shape."""

import json
import math

import jax
import pytest

from robustvit.interop.names import abstract_variables, entries
from robustvit.interop.recognize import STATISTICS
from robustvit.interop.weight_files import COUNTER
from robustvit.models import ALIASES, MODELS, create_model
from robustvit.models.facts import facts
from tests.interop.key_tables import PATH, expand

TABLES = json.loads(PATH.read_text())

PUBLISHED = {  # parameters, as timm prints them
    "vit_small_patch14_dinov2": 22_056_192,
    "vit_base_patch14_dinov2": 86_579_712,
    "vit_large_patch14_dinov2": 304_367_616,
    "vit_giant_patch14_dinov2": 1_136_479_232,
    "vit_small_patch14_reg4_dinov2": 22_057_344,
    "vit_base_patch14_reg4_dinov2": 86_582_016,
    "vit_large_patch14_reg4_dinov2": 304_370_688,
    "vit_giant_patch14_reg4_dinov2": 1_136_483_840,
    "deit3_small_patch16_224": 22_059_496,
    "deit3_base_patch16_224": 86_585_320,
    "deit3_large_patch16_224": 304_374_760,
    "deit3_huge_patch14_224": 632_126_440,
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch16_224.augreg_in21k_ft_in1k": 86_567_656,
    "vit_base_patch16_224.augreg_in21k": 102_595_923,
    "vit_base_patch16_224.orig_in21k": 85_798_656,
    "vit_base_patch16_224.mae": 85_798_656,
    "vit_base_patch32_224": 88_224_232,
    "vit_base_patch16_384": 86_859_496,
    "vit_large_patch16_224": 304_326_632,
    "vit_base_patch32_clip_224": 88_225_000,
    "vit_base_patch16_clip_224": 86_568_424,
    "vit_base_patch16_clip_224.laion2b": 86_193_152,
    "vit_large_patch14_clip_224": 304_204_776,
    "vit_large_patch14_clip_224.laion2b": 303_966_976,
    "vit_huge_patch14_clip_224": 632_047_080,
    "vit_huge_patch14_clip_224.laion2b": 632_077_824,
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "cait_s12_224": 25_611_688,
    "swin_base_patch4_window7_224": 87_768_224,
    "swin_large_patch4_window7_224": 196_532_476,
}


@pytest.mark.parametrize("name", TABLES)
def test_names_and_shapes_are_those_of_timm(name):
    reference = expand(TABLES[name])
    ours = {entry.key: entry.torch_shape for entry in entries(create_model(name))}
    assert ours == {k: v for k, v in reference.items() if not k.endswith(COUNTER)}
    parameters = {k: v for k, v in reference.items() if not STATISTICS.search(k)}
    assert sum(map(math.prod, parameters.values())) == facts()[name].params


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_published(name):
    assert facts()[name].params == PUBLISHED[name]


# XCiT at other strides has the parameters of its patch 16.
OTHERS = [n for n in MODELS.keys() - TABLES.keys() - ALIASES.keys() if n[-3:] != "_32"]


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_listed_parameters_are_the_models(name):
    params = abstract_variables(create_model(name))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == facts()[name].params
