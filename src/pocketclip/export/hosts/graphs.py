"""Exported ONNX with the names and types that a host feeds, and the proof that it is still the same network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from pocketclip.data.publish import publish_file
from pocketclip.export.towers import INPUT_NAMES, OUTPUT_NAME
from pocketclip.runtime.choice import feed
from pocketclip.runtime.manifest import read_manifest
from pocketclip.runtime.onnx_tower import OnnxTower
from pocketclip.runtime.probes import read_probes

_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Ports:
    """What a host calls a tower's ends.

    Attributes:
        input: name.
        output: name.
        has_int32: whether token ids come as int32 rather than int64.
    """

    input: str
    output: str
    has_int32: bool = False


def write_graph(exported: Path, role: str, target: Path, *, ports: Ports) -> None:
    """Writes a tower of an exported folder under other names.

    Args:
        exported: folder of ONNX.
        role: "image" or "text".
        target: file.
        ports: names and type.
    """
    manifest = read_manifest(exported)
    source = exported / manifest.files[role].name
    model = onnx.load(source)
    mine = INPUT_NAMES[role]
    kept = f"{mine}_int64" if ports.has_int32 else ports.input
    taken = {name: f"{name}_inside" for name in (ports.input, ports.output)}  # tensors within the graph
    names = taken | {mine: kept, OUTPUT_NAME: ports.output}
    for node in model.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = names.get(value.name, value.name)
    if ports.has_int32:
        (first,) = model.graph.input
        first.name = ports.input
        first.type.tensor_type.elem_type = onnx.TensorProto.INT32
        cast = onnx.helper.make_node(
            "Cast", [ports.input], [kept], name="to_int64", to=onnx.TensorProto.INT64
        )
        model.graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    with publish_file(target) as file:
        file.write(model.SerializeToString())
    _require_same(exported, role, target, ports=ports)


def _require_same(exported: Path, role: str, target: Path, *, ports: Ports) -> None:
    manifest = read_manifest(exported)
    inputs = read_probes(exported / manifest.files["probes"].name)[role].inputs
    before, after = (
        feed(
            OnnxTower(path),
            inputs.astype(np.int32) if ports.has_int32 and path == target else inputs,
            preprocess=manifest.preprocess,
            pixels=manifest.pixels,
        )
        for path in (exported / manifest.files[role].name, target)
    )
    assert np.abs(before - after).max() <= _TOLERANCE, f"renaming changed the {role} tower"
