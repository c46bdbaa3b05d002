"""A small real face quality model for tests and the benchmark: how sharp an aligned face is.

It stands in for eDifFIQA and CR-FIQA, whose weights are not ours to bundle, in shape and
preprocessing: RGB faces of 112 px from -1 to 1 go in, one number each comes out, higher is better.
That number is the logarithm of the energy of the Laplacian: computed, not learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, of red, green, blue
LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)
FLOOR = 1e-6  # energy added before the logarithm
OPSET, IR = 13, 8  # what onnxruntime 1.17 runs


def save_sharpness_model(
    path: Path,
    batch: int | str = "n",
    embedding: int = 0,
    side: int = 112,
    gain: float = 1.0,
    bare: bool = False,
) -> Path:
    """Write the model. batch: faces per call, or a name for any number of them.

    embedding: numbers of a first output beside the quality, as CR-FIQA has one. gain: factor of
    the quality, which makes another model. bare: shape (n,) and not (n, 1).
    """
    weight = (GREY[:, None, None] * LAPLACIAN)[None]  # (1, 3, 3, 3)
    made = {"weight": weight, "floor": np.float32([FLOOR]), "gain": np.float32([gain])}
    nodes = [
        helper.make_node("Conv", ["faces", "weight"], ["edges"]),
        helper.make_node("Mul", ["edges", "edges"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["energy"], axes=[2, 3], keepdims=1),
        helper.make_node("Flatten", ["energy"], ["flat"]),  # (n, 1)
        helper.make_node("Add", ["flat", "floor"], ["above"]),
        helper.make_node("Log", ["above"], ["logarithm"]),
        helper.make_node("Mul", ["logarithm", "gain"], ["column"]),
    ]
    if bare:
        made["shape"] = np.int64([-1])
        nodes.append(helper.make_node("Reshape", ["column", "shape"], ["quality"]))
    else:
        nodes.append(helper.make_node("Identity", ["column"], ["quality"]))
    shape = [batch] if bare else [batch, 1]
    outputs = [helper.make_tensor_value_info("quality", TensorProto.FLOAT, shape)]
    if embedding:
        made["mixing"] = np.random.default_rng(0).normal(size=(3, embedding)).astype(np.float32)
        nodes += [
            helper.make_node("ReduceMean", ["faces"], ["means"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["means", "mixing"], ["embedding"]),
        ]
        about = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, embedding])
        outputs.insert(0, about)
    inputs = [helper.make_tensor_value_info("faces", TensorProto.FLOAT, [batch, 3, side, side])]
    given = [numpy_helper.from_array(values, name) for name, values in made.items()]
    graph = helper.make_graph(nodes, "sharpness", inputs, outputs, given)
    opset = [helper.make_opsetid("", OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=IR), path)
    return path


def sharpness(crops: Sequence[np.ndarray]) -> np.ndarray:
    """What the model says of aligned faces (112, 112, 3) uint8 BGR, by OpenCV: (k,)."""
    found = []
    for crop in crops:
        grey = (crop[..., ::-1].astype(np.float64) / 127.5 - 1.0) @ GREY
        inner = cv2.filter2D(grey, cv2.CV_64F, LAPLACIAN)[1:-1, 1:-1]
        found.append(np.log((inner**2).mean() + FLOOR))
    return np.array(found)


def save_length_model(recogniser: Path, path: Path) -> Path:
    """Write a recogniser (n, 3, 112, 112) -> (n, d) with the length of its embedding beside it.

    So it is a learned model in the shape of CR-FIQA; what it must say is in the cache already.
    """
    model = onnx.load(recogniser)
    embedding = model.graph.output[0].name
    model.graph.initializer.append(numpy_helper.from_array(np.int64([1]), "along"))
    model.graph.node.append(helper.make_node("ReduceL2", [embedding, "along"], ["quality"]))
    about = helper.make_tensor_value_info("quality", TensorProto.FLOAT, ["batch", 1])
    model.graph.output.append(about)
    onnx.save(model, path)
    return path
