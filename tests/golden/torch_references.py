"""Torch modules of the families that timm does not have, under their authors' names.

Written from the papers and the layouts of published checkpoints, to be run by
make_zoo.py only. Each has `forward_features` (maps before pooling) as timm's have.
"""

import timm
import torch
import torch.nn.functional as F
from timm.models.metaformer import GroupNorm1, MetaFormer
from torch import nn


def conv3x3(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


def conv1x1(inputs, outputs, stride):
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class Pooled(nn.Module):
    """forward = the linear layer `self.linear` or `self.fc` on the mean of the maps."""

    def forward(self, x):
        head = self.fc if hasattr(self, "fc") else self.linear
        return head(self.forward_features(x).mean((2, 3)))


class WideBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.convShortcut = (
            conv1x1(inputs, outputs, stride) if inputs != outputs else None
        )

    def forward(self, x):
        activated = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return y + (self.convShortcut(activated) if self.convShortcut else x)


class WideGroup(nn.Module):
    def __init__(self, depth, inputs, outputs, stride):
        super().__init__()
        first = WideBlock(inputs, outputs, stride)
        rest = [WideBlock(outputs, outputs, 1) for _ in range(depth - 1)]
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x):
        return self.layer(x)


class WideResNet(Pooled):
    def __init__(self, depth, width, num_classes):
        super().__init__()
        n, widths = (depth - 4) // 6, [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = conv3x3(3, 16)
        self.block1 = WideGroup(n, widths[0], widths[1], 1)
        self.block2 = WideGroup(n, widths[1], widths[2], 2)
        self.block3 = WideGroup(n, widths[2], widths[3], 2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)

    def forward_features(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return F.relu(self.bn1(x))


class PreActBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv1x1(inputs, outputs, stride))

    def forward(self, x):
        y = self.conv1(F.relu(self.bn1(x)))
        y = self.conv2(F.relu(self.bn2(y)))
        return y + (self.shortcut(x) if hasattr(self, "shortcut") else x)


class CifarBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.new = stride, outputs - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            zeros = x.new_zeros(len(x), self.new // 2, *y.shape[2:])
            x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
        return F.relu(y + x)


def stages(block, layers, widths, inputs):
    for i, (depth, width) in enumerate(zip(layers, widths, strict=True)):
        blocks = []
        for j in range(depth):
            blocks.append(block(inputs, width, 2 if i and j == 0 else 1))
            inputs = width
        yield nn.Sequential(*blocks)


class PreActResNet(Pooled):
    def __init__(self, layers, widths, num_classes):
        super().__init__()
        self.conv1 = conv3x3(3, widths[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = stages(
            PreActBlock, layers, widths, widths[0]
        )
        self.linear = nn.Linear(widths[-1], num_classes)

    def forward_features(self, x):
        x = self.layer2(self.layer1(self.conv1(x)))
        return self.layer4(self.layer3(x))


class CifarResNet(Pooled):
    def __init__(self, depth, num_classes):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(3, 16), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = stages(
            CifarBlock, [(depth - 2) // 6] * 3, (16, 32, 64), 16
        )
        self.linear = nn.Linear(64, num_classes)

    def forward_features(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x)))


class ChannelsLastNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convnext_cvst(*, stem_widths, **arguments):
    model = timm.create_model("convnext_tiny", **arguments)
    layers, inputs = [], 3
    for i, width in enumerate(stem_widths):
        convolution = nn.Conv2d(inputs, width, 3, 2 if i < 2 else 1, 1)
        layers += [convolution, ChannelsLastNorm(width, eps=1e-6), nn.GELU()]
        inputs = width
    model.stem = nn.Sequential(*layers)
    return model


class ConvStem(nn.Module):
    """In the place of the first convolution of a ViT."""

    def __init__(self, widths, dim):
        super().__init__()
        layers, inputs = [], 3
        for width in widths:
            norm = ChannelsLastNorm(width, eps=1e-6)
            layers += [nn.Conv2d(inputs, width, 3, 2, 1), norm, nn.GELU()]
            inputs = width
        self.stem = nn.Sequential(*layers, nn.Conv2d(inputs, dim, 1))

    def forward(self, x):
        return self.stem(x)


def vit_cvst(*, stem_widths, **arguments):
    model = timm.create_model("vit_tiny_patch16_224", **arguments)
    model.patch_embed.proj = ConvStem(stem_widths, arguments["embed_dim"])
    return model


def resnet50_32(**arguments):
    model = timm.create_model("resnet50", **arguments)
    model.conv1, model.maxpool = conv3x3(3, 64), nn.Identity()
    return model


class NormFirst(MetaFormer):
    """The authors' order: GroupNorm, then the mean."""

    def forward_features(self, x):
        return self.head.norm(super().forward_features(x))

    def forward_head(self, x):
        return self.head.fc(x.mean((2, 3)))


def poolformer(*, family=MetaFormer, output_norm=None, **arguments):
    """timm's entry points fix the depths, so its class is called as they call it."""
    norms = {} if output_norm is None else {"output_norm": output_norm}
    return family(
        downsample_norm=None,
        mlp_act=nn.GELU,
        mlp_bias=True,
        norm_layers=GroupNorm1,
        layer_scale_init_values=1e-5,
        res_scale_init_values=None,
        use_mlp_head=False,
        **norms,
        **arguments,
    )


def poolformer_norm_first(**arguments):
    return poolformer(family=NormFirst, output_norm=GroupNorm1, **arguments)


REFERENCES = {
    "wide_resnet": WideResNet,
    "preact_resnet": PreActResNet,
    "cifar_resnet": CifarResNet,
    "convnext_cvst": convnext_cvst,
    "vit_cvst": vit_cvst,
    "resnet50_32": resnet50_32,
    "poolformer": poolformer,
    "poolformer_norm_first": poolformer_norm_first,
}
