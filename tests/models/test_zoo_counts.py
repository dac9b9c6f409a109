"""Parameter counts of the convolutional families, as published."""

import jax
import pytest

from robustvit.interop.names import abstract_variables
from robustvit.models import (
    cifar_resnet,
    convnext,
    poolformer,
    preact_resnet,
    resnet,
    swin,
    wide_resnet,
)

FAMILIES = (
    (resnet.ResNet, resnet.VARIANTS),
    (wide_resnet.WideResNet, wide_resnet.VARIANTS),
    (preact_resnet.PreActResNet, preact_resnet.VARIANTS),
    (cifar_resnet.CifarResNet, cifar_resnet.VARIANTS),
    (convnext.ConvNeXt, convnext.VARIANTS),
    (poolformer.PoolFormer, poolformer.VARIANTS),
    (swin.Swin, swin.VARIANTS),
)
VARIANTS = {
    name: (family, fields)
    for family, variants in FAMILIES
    for name, fields in variants.items()
}

COUNTS = {  # at the number of classes that the name has
    # timm, and the Light Recipe's repository
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet152": 60_192_808,
    "wide_resnet50_2": 68_883_240,
    "resnet18_gelu": 11_689_512,
    "resnet50_gelu": 25_557_032,
    "resnet50_gelu_adv": 25_557_032,
    "resnet152_gelu": 60_192_808,
    "resnet50_32": 23_520_842 + 990 * 2049,  # published with 10 classes
    "resnext152_32x8d": 119_968_040,
    # TRADES, RobustBench
    "wide_resnet_28_10": 36_479_194,
    "wide_resnet_34_10": 46_160_474,
    "wide_resnet_34_20": 184_531_674,
    "wide_resnet_70_16": 266_796_506,
    "wide_resnet_106_16": 415_475_162,
    "preact_resnet18": 11_171_146,
    # akamaster's, whose README rounds: 0.27, 0.46, 0.66, 0.85, 1.7 million
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet44": 658_586,
    "cifar_resnet56": 853_018,
    "cifar_resnet110": 1_727_962,
    # timm; Singh, Croce & Hein
    "convnext_tiny": 28_589_128,
    "convnext_small": 50_223_688,
    "convnext_base": 88_591_464,
    "convnext_large": 197_767_336,
    "convnext_tiny_cvst": 28_627_432,
    "convnext_small_cvst": 50_261_992,
    "convnext_base_cvst": 88_753_416,
    "convnext_large_cvst": 198_134_680,
    # timm; the last is its MetaFormer of those depths and widths
    "poolformer_s12": 11_915_176,
    "poolformer_s24": 21_388_968,
    "poolformer_s36": 30_862_760,
    "poolformer_m36": 56_172_520,
    "poolformer_m48": 73_473_448,
    "poolformer_m12": 21_570_664,
    # timm
    "swin_tiny_patch4_window7_224": 28_288_354,
    "swin_small_patch4_window7_224": 49_606_258,
    "swin_base_patch4_window7_224": 87_768_224,
    "swin_large_patch4_window7_224": 196_532_476,
    "swin_base_patch4_window12_384": 87_903_584,
    "swin_large_patch4_window12_384": 196_735_516,
}


def count(name, **overrides):
    family, fields = VARIANTS[name]
    params = abstract_variables(family(**{**fields, **overrides}))["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_every_name_has_a_count():
    assert set(COUNTS) == set(VARIANTS)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    assert count(name) == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "num_classes", "expected"),
    [
        ("resnet50_32", 10, 23_520_842),
        ("resnet50_32", 100, 23_705_252),
        ("preact_resnet18", 100, 11_217_316),
    ],
)
def test_parameter_counts_with_other_heads(name, num_classes, expected):
    assert count(name, num_classes=num_classes) == expected
