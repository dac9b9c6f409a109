"""Evaluation: attacks over a dataset, and the report of what withstood them."""

from robustvit.evaluation.engine import evaluate
from robustvit.evaluation.forwards import Randomized, logits_fn
from robustvit.evaluation.report import Report

__all__ = ["Randomized", "Report", "evaluate", "logits_fn"]
