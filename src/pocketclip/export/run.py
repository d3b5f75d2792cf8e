"""Checkpoint in, exported folder out, published only when it proves equal to the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from pocketclip.checkpoint import Loaded, load
from pocketclip.data.publish import publish_folder
from pocketclip.data.sample import JsonValue
from pocketclip.export.config import ExportConfig
from pocketclip.export.parity import ParityError, ParityReport, embed_reference, measure, require
from pocketclip.export.probes import PROBE_TEXTS, Probes, make_pictures
from pocketclip.models import VARIANTS, fold
from pocketclip.runtime import ExportedModel, Manifest
from pocketclip.runtime.manifest import MANIFEST_FILE, describe_file, write_manifest

FILES = {"image": "image.onnx", "text": "text.onnx", "tokenizer": "tokenizer.json"}


def export(
    checkpoint: Path | str | Loaded,
    out: Path,
    *,
    config: ExportConfig | None = None,
    images: Sequence[Image.Image] = (),
    texts: Sequence[str] = (),
) -> ParityReport:
    """Export both towers to ONNX, folded, with normalised embeddings, and prove them equal to the checkpoint.

    Args:
        checkpoint: a file written by `pocketclip train`, a variant's name (random weights), or a loaded one.
        out: folder for image.onnx, text.onnx, tokenizer.json and manifest.json; an earlier export is replaced.
        config: operator set and gate; None for the defaults.
        images: real pictures for the gate, besides the made-up ones.
        texts: real texts for the gate, besides the built-in ones.

    Returns:
        What the gate measured; it is in the manifest too.

    Raises:
        ParityError: the exported towers differ from the checkpoint, or it is not finite; nothing is published.
        ImportError: the `onnx` extra is not installed.
        ValueError: a checkpoint that cannot be used.
        OSError: a file that cannot be read or written.
    """
    _require_extra()
    config = config or ExportConfig()
    loaded = checkpoint if isinstance(checkpoint, Loaded) else load(checkpoint)
    _require_finite(loaded)
    probes = Probes(
        images=(*images, *make_pictures(config.num_pictures, seed=config.seed)),
        texts=(*texts, *PROBE_TEXTS),
    )
    expected = embed_reference(loaded, probes)
    with publish_folder(Path(out), marker=MANIFEST_FILE) as folder:
        write_towers(loaded, folder, opset=config.opset)
        write_manifest(folder, describe(loaded, folder, opset=config.opset, parity={}))
        try:
            report = measure(ExportedModel(folder), expected=expected, probes=probes, config=config)
            require(report)
        except ParityError as error:
            raise ParityError(f"{out}: {error}", report=error.report) from error
        write_manifest(folder, describe(loaded, folder, opset=config.opset, parity=report.to_json()))
    return report


def write_towers(loaded: Loaded, folder: Path, *, opset: int) -> None:
    """Writes both towers, folded, and the tokenizer into a folder."""
    from pocketclip.export.trace import trace  # needs the `onnx` extra

    config = loaded.config
    folded = fold(loaded.model)
    size = config.preprocess.size
    trace(
        folded.image, torch.zeros(2, 3, size, size), folder / FILES["image"], input_name="pixels", opset=opset
    )
    trace(
        folded.text,
        loaded.tokenize(["a cat", "dogs"]),
        folder / FILES["text"],
        input_name="tokens",
        opset=opset,
    )
    (folder / FILES["tokenizer"]).write_text(loaded.tokenizer.to_json(), encoding="utf-8")


def describe(loaded: Loaded, folder: Path, *, opset: int, parity: dict[str, JsonValue]) -> Manifest:
    """The manifest of a checkpoint whose files are in the folder."""
    names = [name for name, row in VARIANTS.items() if row.model == loaded.config.model]
    return Manifest(
        model=names[0] if names else "custom",
        checkpoint=loaded.digest,
        embed_dim=loaded.config.model.embed_dim,
        logit_scale=float(loaded.model.logit_scale.detach().float().exp()),
        preprocess=loaded.config.preprocess,
        context_length=loaded.config.tokenizer.context_length,
        precision="fp32",
        opset=opset,
        files={role: describe_file(folder / name) for role, name in FILES.items()},
        parity=parity,
    )


def _require_extra() -> None:
    try:
        import onnx
        import onnxscript
    except ImportError as error:
        raise ImportError(
            f"exporting needs {error.name}, which is not installed: pip install 'pocketclip[onnx]'"
        ) from error
    assert onnx.__name__
    assert onnxscript.__name__


def _require_finite(loaded: Loaded) -> None:
    broken = [name for name, value in loaded.model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        listed = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
        raise ParityError(
            f"the checkpoint's weights are not finite ({listed}): the run diverged; export an earlier "
            f"checkpoint, or train again with a lower learning rate"
        )
