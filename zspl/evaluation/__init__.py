"""Scores: checkpoints on val, pseudo labels on masks that may be seen, folders of label maps.

Every mIoU here is pooled: one confusion matrix over all images, void pixels (255) left out.
"""
