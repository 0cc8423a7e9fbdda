"""Scores of label maps."""

from zspl.metrics.confusion import ConfusionMatrix

__all__ = ["ConfusionMatrix"]
