"""A network as ONNX, and how far onnxruntime's logits are from torch's."""

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zspl.errors import WeightsError
from zspl.models import SegmentationNetwork

OPSET = 18
SIZES = ((96, 128), (97, 131), (224, 224), (321, 257))
"""(height, width) of the images that are compared; odd ones, too."""

MOST_DIFFERENT = 1e-3
"""Of logits, over the largest of them or 1."""

LEAST_EQUAL = 0.999
"""Share of pixels of equal class."""

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """How one image came out: the largest difference of logits, their largest, equal classes."""

    size: Size
    difference: float
    largest: float
    equal: float

    @property
    def good(self) -> bool:
        """Whether the difference is within the bounds."""
        within = self.difference <= MOST_DIFFERENT * max(1.0, self.largest)
        return within and self.equal >= LEAST_EQUAL


def export(
    model: SegmentationNetwork, *, size: Size | None, metadata: Mapping[str, object]
) -> bytes:
    """Return the network as the bytes of an ONNX file.

    Torch's older exporter is taken: it traces, which is an order of magnitude faster than the
    one that captures, with the same logits for every network that we compared.

    Args:
        model: In evaluation mode, on the processor.
        size: (height, width) of all images, or None for any.
        metadata: Values that JSON knows, by name.

    Raises:
        WeightsError: if the network has an operation that cannot be written as ONNX.
    """
    import onnx
    import onnxscript  # noqa: F401 - torch needs it, and complains in its own way

    free = None if size is not None else {0: "batch", 2: "height", 3: "width"}
    image = torch.zeros(1, 3, *(size or SIZES[0]))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Tracing warns of every size that it may fix; `compare` finds those that matter.
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(
                model,
                (image,),
                path,
                dynamo=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes={"image": free, "logits": free} if free else None,
                opset_version=OPSET,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WeightsError(f"the network cannot be written as ONNX ({reason})") from error
        made: Any = onnx.load(path)
    for key, value in sorted(metadata.items()):
        text = value if isinstance(value, str) else json.dumps(value)
        made.metadata_props.add(key=f"zspl.{key}", value=text)
    onnx.checker.check_model(made, full_check=False)
    content: bytes = made.SerializeToString()
    return content


def compare(
    model: SegmentationNetwork, content: bytes, *, sizes: Sequence[Size]
) -> list[Parity | str]:
    """Compute the same noise with torch and onnxruntime, on the processor.

    Returns:
        For each size how the logits compare, or the line with which onnxruntime failed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        content, sess_options=options, providers=["CPUExecutionProvider"]
    )
    return [_parity(model, session, size) for size in sizes]


def _parity(model: SegmentationNetwork, session: Any, size: Size) -> Parity | str:  # noqa: ANN401
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(image)
    try:
        found = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
    except Exception as error:  # onnxruntime raises its own kinds, which it does not name
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    if found.shape != expected.shape:
        return f"logits of {tuple(found.shape)}, expected {tuple(expected.shape)}"
    return Parity(
        size=size,
        difference=float((found - expected).abs().max()),
        largest=float(expected.abs().max()),
        equal=float((found.argmax(dim=1) == expected.argmax(dim=1)).float().mean()),
    )
