"""zspl export: a trained network as ONNX."""

import argparse
import os
from pathlib import Path

from zspl.cli import _checkpoint, _onnx
from zspl.errors import SettingsError, WeightsError
from zspl.inference import load_carded
from zspl.io import atomic
from zspl.io.model_card import ModelCard
from zspl.io.weights import file_sha256

_MEGABYTE = 10**6


def run(arguments: argparse.Namespace) -> int:
    """Write the file, if onnxruntime computes with it what torch computes."""
    out, size = arguments.out, arguments.size
    if out.suffix != ".onnx":
        raise SettingsError(f"--out {out}: the name must end in .onnx")
    os.environ["ZSPL_DEVICE"] = "cpu"
    checkpoint, card = _checkpoint.find(arguments.checkpoint, arguments.params)
    model = load_carded(checkpoint, card)
    print(f"checkpoint  {checkpoint} ({card.network}, {len(card.classes)} classes)")
    content = _onnx.export(model, size=size, metadata=_metadata(card, checkpoint, size))
    sizes = _onnx.SIZES if size is None else (size,)
    good = True
    for (height, width), found in zip(
        sizes, _onnx.compare(model, content, sizes=sizes), strict=True
    ):
        good &= not isinstance(found, str) and found.good
        print(f"{height:>4} x {width:<4} {_told(found)}")
    if not good:
        raise WeightsError(
            f"{out}: not written, onnxruntime does not give torch's logits; {_hint(size)}"
        )
    atomic.write_bytes(out, content)
    print(f"written     {out} ({len(content) / _MEGABYTE:.1f} MB, opset {_onnx.OPSET})")
    return 0


def _told(found: _onnx.Parity | str) -> str:
    if isinstance(found, str):
        return f"failed: {found}"
    return (
        f"logits differ by at most {found.difference:.1e} (largest {found.largest:.1f}), "
        f"{found.equal:.3%} of the pixels have the same class"
    )


def _hint(size: tuple[int, int] | None) -> str:
    if size is None:
        return "fix the size of the images with --size, such as --size 518x518"
    return "use the checkpoint with zspl predict"


def _metadata(card: ModelCard, checkpoint: Path, size: tuple[int, int] | None) -> dict[str, object]:
    return {
        "classes": list(card.classes),
        "background": card.background,
        "mean": list(card.mean),
        "std": list(card.std),
        "input": "RGB in [0, 1], (value - mean) / std, [batch, 3, height, width]",
        "size": "any" if size is None else f"{size[0]}x{size[1]}",
        "network": card.network,
        "trained": dict(card.trained),
        "checkpoint_sha256": file_sha256(checkpoint),
    }
