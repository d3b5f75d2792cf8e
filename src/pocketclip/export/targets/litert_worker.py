"""What the Python with litert-torch does: writes a checkpoint's tower as .tflite, or runs one.

python -m pocketclip.export.targets.litert_worker write CHECKPOINT PATH ROLE PRECISION PIXELS
python -m pocketclip.export.targets.litert_worker run PATH INPUTS.npy OUTPUTS.npy
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from pocketclip.checkpoint import load
from pocketclip.export.targets.pipe import receive, send
from pocketclip.export.towers import build_tower


def main(arguments: list[str]) -> None:
    """Does one of the two."""
    verb, *rest = arguments
    {"write": _write, "serve": _serve}[verb](*rest)


def _write(checkpoint: str, path: str, role: str, precision: str, pixels: str) -> None:
    import litert_torch  # ty: ignore[import-not-found]

    tower, example = build_tower(
        load(Path(checkpoint)), role, pixels=cast("Literal['float32', 'uint8']", pixels)
    )
    if role == "text":
        example = example.int()  # its ArgMax takes no int64
    with torch.no_grad():
        model = litert_torch.convert(tower, (example[:1].contiguous(),))
    model.export(path)
    if precision == "int8-weights":
        _compress(Path(path))


def _compress(path: Path) -> None:
    """int8 weights, float32 arithmetic."""
    from ai_edge_quantizer import quantizer, recipe  # ty: ignore[import-not-found]

    work = quantizer.Quantizer(str(path))
    work.load_quantization_recipe(recipe.weight_only_wi8_afp32())
    small = path.with_suffix(".small.tflite")
    work.quantize().export_model(str(small))
    small.replace(path)


def _serve(path: str) -> None:
    from ai_edge_litert.interpreter import Interpreter  # ty: ignore[import-not-found]

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print
    interpreter: Any = Interpreter(model_path=path)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    while (batch := receive(sys.stdin.buffer)) is not None:
        rows = []
        for row in batch:
            interpreter.set_tensor(taken["index"], row[None].astype(taken["dtype"]))
            interpreter.invoke()
            rows.append(interpreter.get_tensor(given["index"])[0].copy())
        send(answers, np.stack(rows).astype(np.float32))


if __name__ == "__main__":
    main(sys.argv[1:])
