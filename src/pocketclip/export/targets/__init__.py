"""The formats that towers are written in: one module each, behind one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from pocketclip.export.config import Precision, Target
from pocketclip.export.towers import TowerRequest, WrittenTower
from pocketclip.runtime.tower import Tower


class TargetModule(Protocol):
    """What a module of this package offers."""

    def write(self, request: TowerRequest) -> WrittenTower:
        """Writes one tower into the request's folder.

        Raises:
            ValueError: the tower cannot be written so.
        """
        ...

    def open_tower(self, path: Path, *, precision: Precision) -> Tower:
        """Opens what `write` wrote, for the gate.

        Raises:
            TowerError: it cannot be loaded.
            CannotRunError: nothing on this machine runs it.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TargetFacts:
    """Where a target is written, and what that needs.

    Attributes:
        module: that writes it.
        extra: of pyproject.toml.
        packages: importable names that the extra brings.
    """

    module: str
    extra: str
    packages: tuple[str, ...]


TARGETS: Mapping[Target, TargetFacts] = {
    "onnx": TargetFacts(module="onnx_target", extra="onnx", packages=("onnx", "onnxscript")),
    "openvino": TargetFacts(
        module="openvino_target", extra="quantise", packages=("openvino", "nncf", "onnx", "onnxscript")
    ),
    "coreml": TargetFacts(module="coreml_target", extra="coreml", packages=("coremltools",)),
    "executorch": TargetFacts(module="executorch_target", extra="executorch", packages=("executorch",)),
    "litert": TargetFacts(module="litert_target", extra="train", packages=()),
    "pt2": TargetFacts(module="pt2_target", extra="train", packages=()),
    "web": TargetFacts(module="web_target", extra="onnx", packages=("onnx", "onnxscript")),
}


def target_module(target: Target) -> TargetModule:
    """The module that writes a target.

    Raises:
        ImportError: its extra is not installed.
    """
    facts = TARGETS[target]
    for package in facts.packages:
        try:
            import_module(package)
        except ImportError as error:
            raise ImportError(
                f"exporting to {target} needs {error.name or package}, which is not installed: "
                f"pip install 'pocketclip[{facts.extra}]'"
            ) from error
    return cast("TargetModule", import_module(f"pocketclip.export.targets.{facts.module}"))


__all__ = ["TARGETS", "TargetFacts", "TargetModule", "target_module"]
