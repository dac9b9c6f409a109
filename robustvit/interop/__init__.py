"""Bridges to torch: published weights in, trained weights out.

variables = load_torch(model, "weights.safetensors")
save_torch(model, variables, "robust.pth")
"""

from robustvit.interop.export import save_torch
from robustvit.interop.hub import load_hf, weights_from_hub
from robustvit.interop.load import load_torch

__all__ = ["load_hf", "load_torch", "save_torch", "weights_from_hub"]
