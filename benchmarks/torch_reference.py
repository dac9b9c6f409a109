"""The train step of `benchmarks.train_step` as one writes it with PyTorch and timm.

The same mathematics: random start, signed ascent in evaluation mode with gradients
with respect to the images only, loss in training mode, AdamW with timm's exemptions.

    step = make_step(timm.create_model("xcit_nano_12_p16_224"), images, labels, ...)
    loss = step()
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BETA = 6.0  # of TRADES, as in benchmarks.train_step
SMOOTHING = 0.1  # of the labels in adversarial training, as there
LAYOUTS = {
    "channels_first": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


def build(name: str, num_classes: int, strides: tuple[int, ...]) -> nn.Module:
    """timm's XCiT of patch 16, with its stem at other strides for smaller patches."""
    model = timm.create_model(name, num_classes=num_classes)
    for i, stride in enumerate(strides):
        model.patch_embed.proj[2 * i][0].stride = (stride, stride)
    return model


def make_step(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    steps: int,
    eps: float,
    step_size: float,
    trades: bool,
    layout: str,
    torch_compile: bool = False,
) -> Callable[[], float]:
    """A function that does one whole step on uint8 images (b, h, w, 3)."""
    memory_format = LAYOUTS[layout]
    model.to(memory_format=memory_format)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    targets = torch.from_numpy(labels).long()
    optimizer = _adamw(model)
    # The parameters are shared, so that this only changes who calls the model.
    net = torch.compile(model) if torch_compile else model

    def step() -> float:
        x = (pixels.float() / 255.0).contiguous(memory_format=memory_format)
        x_adv = _attack(net, x, targets, steps, eps, step_size, trades)
        net.train()
        loss, _ = (_trades_loss if trades else _adversarial_loss)(
            net, x, x_adv, targets
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _adamw(model):
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    groups = [
        {"params": vectors, "weight_decay": 0.0},
        {"params": matrices, "weight_decay": 0.05},
    ]
    # The fused kernel is the fastest of torch's three, on CPU too.
    return torch.optim.AdamW(groups, lr=1e-4, fused=True)


def _attack(net, x, labels, steps, eps, step_size, trades) -> Tensor:
    net.eval()
    if trades:
        with torch.no_grad():
            target = net(x).softmax(-1)
    low, high = (x - eps).clamp_(0.0, 1.0), (x + eps).clamp_(0.0, 1.0)
    x_adv = (x + eps * (2 * torch.rand_like(x) - 1)).clamp_(0.0, 1.0)
    # Without this the forward keeps what the parameters' gradients would need.
    net.requires_grad_(False)
    for _ in range(steps):
        x_adv.requires_grad_(True)
        logits = net(x_adv)
        if trades:
            loss = F.kl_div(logits.log_softmax(-1), target, reduction="sum")
        else:
            loss = F.cross_entropy(logits, labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = x_adv.detach().add(gradient.sign_(), alpha=step_size)
        x_adv = torch.minimum(torch.maximum(x_adv, low), high)
    net.requires_grad_(True)
    return x_adv


def _adversarial_loss(net, x, x_adv, labels):
    logits = net(x_adv)
    right = (logits.argmax(-1) == labels).float().mean()
    return F.cross_entropy(logits, labels, label_smoothing=SMOOTHING), right


def _trades_loss(net, x, x_adv, labels):
    clean, robust = net(x), net(x_adv)
    right = (robust.argmax(-1) == labels).float().mean()
    drift = F.kl_div(
        robust.log_softmax(-1),
        clean.log_softmax(-1),
        log_target=True,
        reduction="batchmean",
    )
    return F.cross_entropy(clean, labels) + BETA * drift, right
