"""Zero-shot pseudo labels from SAM and CLIP for semi-supervised semantic segmentation."""

__version__ = "0.1.0"
