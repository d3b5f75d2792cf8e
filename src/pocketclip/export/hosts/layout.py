"""A checkpoint as another program wants its folder; what has to be converted goes through the gate first."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from pocketclip.checkpoint import Loaded, load
from pocketclip.checkpoint.foreign import write_foreign
from pocketclip.data.publish import publish_folder
from pocketclip.export.config import ExportConfig
from pocketclip.export.hosts import immich, sentence_folder, transformers_js
from pocketclip.export.report import ParityReport
from pocketclip.export.run import Material, export

Host: TypeAlias = Literal["open_clip", "transformers.js", "sentence-transformers", "immich"]
"""Program that loads the folder."""

RECORD_FILE = "pocketclip.json"
"""What a laid out folder says of itself: host, checkpoint, precision, parity."""

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a host's folder is written.

    Attributes:
        write: fills a folder from the checkpoint and a folder of ONNX, which is None for hosts that take weights.
        precisions: that it can hold.
    """

    write: Callable[[Path, Loaded, Path | None], None]
    precisions: tuple[str, ...]


HOSTS: Mapping[str, Layout] = {
    "transformers.js": Layout(write=transformers_js.write, precisions=("fp32", "fp16", "int8")),
    "sentence-transformers": Layout(write=sentence_folder.write, precisions=("fp32",)),
    "immich": Layout(write=immich.write, precisions=("fp32", "fp16", "int8")),
}
"""Hosts but for open_clip, whose folder `pocketclip convert` writes too."""

_OF_WEIGHTS = ("open_clip", "sentence-transformers")


def export_for(
    checkpoint: Path | str | Loaded,
    out: Path,
    *,
    host: Host,
    config: ExportConfig | None = None,
    material: Material | None = None,
) -> ParityReport | None:
    """Writes a folder that a host loads.

    Args:
        checkpoint: a file written by `pocketclip train`, or a loaded one.
        out: folder; an earlier one of ours is replaced.
        host: program that is to load it.
        config: precision and gate of hosts that take ONNX; None for the defaults.
        material: real pictures and captions, for int8 and for the gate.

    Returns:
        What the gate measured of the ONNX in the folder; None for open_clip and sentence-transformers, which take the
        weights as they are.

    Raises:
        ParityError: the towers differ from the checkpoint; nothing is published, unless the configuration forces it.
        ImportError: the `onnx` extra is not installed.
        ValueError: a host or precision that there is not, or a model that the host cannot hold.
        OSError: a file that cannot be read or written.
    """
    config, out = replace(config or ExportConfig(), target="onnx"), Path(out)
    _require(host, config)
    loaded = checkpoint if isinstance(checkpoint, Loaded) else load(checkpoint)
    if host == "open_clip":
        write_foreign(loaded, out, layout="open_clip")
        return None
    with tempfile.TemporaryDirectory(prefix="pocketclip-host-") as scratch:
        report, exported = None, None
        if host not in _OF_WEIGHTS:
            exported = Path(scratch) / "onnx"
            report = export(loaded, exported, config=config, material=material)
        with publish_folder(out, marker=RECORD_FILE) as folder:
            HOSTS[host].write(folder, loaded, exported)
            record = {
                "format": "pocketclip-host",
                "version": _VERSION,
                "host": host,
                "checkpoint": loaded.digest,
                "precision": config.precision,
                "parity": None if report is None else report.to_json(),
            }
            (folder / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return report


def _require(host: str, config: ExportConfig) -> None:
    if host not in get_args(Host):
        raise ValueError(f"host is {host!r}: it must be one of {', '.join(get_args(Host))}")
    precisions = HOSTS[host].precisions if host in HOSTS else ("fp32",)
    if config.precision not in precisions:
        raise ValueError(f"precision is {config.precision!r}: {host} takes {', '.join(precisions)}")
    if config.pixels != "float32" or set(config.towers) != {"image", "text"}:
        raise ValueError(f"{host} feeds both towers itself: leave --pixels and --towers as they are")
