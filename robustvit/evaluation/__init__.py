"""Evaluation: attacks over a dataset, and the report of what withstood them."""

from robustvit.evaluation.engine import evaluate, logits_fn
from robustvit.evaluation.report import Report

__all__ = ["Report", "evaluate", "logits_fn"]
