"""Scores: checkpoints on val, pseudo labels on masks that may be seen, folders of label maps.

Every mIoU here is pooled: one confusion matrix over all images, void pixels (255) left out.
"""

METRICS = "metrics.json"
"""The score file of a cell or of a pseudo-label variant."""

CURVES = "curves.csv"
"""Loss and val mIoU of a training, beside its scores."""

PREDICTIONS = "predictions"
"""The folder beside it with the label maps of a few val images, for the report."""

SEEN = "evaluate"
"""The key of a cell's score file under which the section `evaluate` stands as it was."""

SHOWN_IMAGES = 6
