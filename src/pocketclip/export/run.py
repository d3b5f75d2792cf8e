"""Checkpoint in, exported folder out, published only when it proves equal to the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pocketclip.checkpoint import Loaded, load, save
from pocketclip.data.publish import publish_folder
from pocketclip.data.sample import JsonValue
from pocketclip.export.card import CARD_FILE, write_card
from pocketclip.export.config import CALIBRATED, ExportConfig
from pocketclip.export.gallery import GALLERY_FILE, write_gallery
from pocketclip.export.judge import Judge, sit
from pocketclip.export.page_parity import measure_page
from pocketclip.export.pairs import Pairs
from pocketclip.export.parity import measure
from pocketclip.export.probes import PROBE_TEXTS, Probes
from pocketclip.export.report import LayerDifference, ParityError, ParityReport, require
from pocketclip.export.site import write_site
from pocketclip.export.targets import target_module
from pocketclip.export.towers import CannotRunError, TowerRequest
from pocketclip.models import VARIANTS
from pocketclip.runtime import ExportedModel, Manifest
from pocketclip.runtime.choice import feed
from pocketclip.runtime.manifest import MANIFEST_FILE, describe_file, write_manifest
from pocketclip.runtime.probes import PROBES_FILE, TowerProbes, write_probes
from pocketclip.runtime.tower import Tower, TowerError

TOKENIZER_FILE = "tokenizer.json"
LABELS_FILE = "labels.txt"
_CARRIED = 4  # probes that the folder carries
_LAYERS = 5  # that a report names
_EXPLAINED = ("onnx", "openvino", "web")  # targets whose layers can be compared


@dataclass(frozen=True, kw_only=True)
class Material:
    """Real pictures and captions that an export is made and judged with.

    Attributes:
        judged_by: for the gate, besides made-up probes.
        calibrated_on: for int8; other pairs than those, where there are enough.
        labels: classes that go into the folder; may be empty.
        pictures: a folder of pictures that the page of "web" can search; None for none.
    """

    judged_by: Pairs = field(default_factory=Pairs)
    calibrated_on: Pairs = field(default_factory=Pairs)
    labels: tuple[str, ...] = ()
    pictures: Path | None = None


def export(
    checkpoint: Path | str | Loaded,
    out: Path,
    *,
    config: ExportConfig | None = None,
    material: Material | None = None,
) -> ParityReport:
    """Export a checkpoint's towers, folded, with normalised embeddings, and prove them equal to it.

    Args:
        checkpoint: a file written by `pocketclip train`, a variant's name (random weights), or a loaded one.
        out: folder for the towers, tokenizer.json, probes and manifest.json; an earlier export is replaced.
        config: target, precision and gate; None for the defaults.
        material: real pictures and captions; None for none.

    Returns:
        What the gate measured; it is in the manifest too.

    Raises:
        ParityError: the exported towers differ from the checkpoint, or it is not finite; nothing is published, unless
            the configuration forces it.
        ImportError: the target's extra is not installed.
        ValueError: a checkpoint that cannot be used; int8 without material.
        OSError: a file that cannot be read or written.
    """
    config, material = config or ExportConfig(), material or Material()
    loaded = checkpoint if isinstance(checkpoint, Loaded) else load(checkpoint)
    with sit(loaded, pairs=material.judged_by, num_pictures=config.num_pictures, seed=config.seed) as judge:
        return export_before(judge, out, config=config, material=material)


def export_before(judge: Judge, out: Path, *, config: ExportConfig, material: Material) -> ParityReport:
    """`export` of a checkpoint that a judge has; other exports of it may share the judge."""
    if config.precision in CALIBRATED and not len(material.calibrated_on):
        raise ValueError(
            f"{config.precision} is calibrated on real pictures and captions: give packed ones, --data FOLDER"
        )
    target_module(config.target)
    _require_finite(judge.loaded)
    expected = judge.expected
    assert expected
    with publish_folder(Path(out), marker=MANIFEST_FILE) as folder:
        try:
            report = _write_and_measure(judge, folder, config=config, material=material)
            if not config.force:
                require(report)
        except ParityError as error:
            raise ParityError(f"{out}: {error}", report=error.report) from error
    return report


def check(
    checkpoint: Path | str | Loaded,
    folder: Path,
    *,
    config: ExportConfig | None = None,
    judged_by: Pairs | None = None,
) -> ParityReport:
    """Runs the gate on a folder that was exported before, whoever changed it since.

    Args:
        checkpoint: what it was exported from.
        folder: written by `export`.
        config: what the gate runs and allows; target and precision are the folder's own.
        judged_by: real pictures and captions.

    Raises:
        ParityError: it cannot run.
        ValueError, OSError: checkpoint or folder cannot be used.
    """
    loaded = checkpoint if isinstance(checkpoint, Loaded) else load(checkpoint)
    manifest = ExportedModel(folder, verify=False).manifest
    config = replace(
        config or ExportConfig(), target=manifest.target, precision=manifest.precision, towers=manifest.towers
    )
    pairs = judged_by or Pairs()
    with sit(loaded, pairs=pairs, num_pictures=config.num_pictures, seed=config.seed) as judge:
        report = _measure(judge, Path(folder), config=config)
        if config.target == "web" and report.passed:
            report, _ = measure_page(report, Path(folder), judge=judge, config=config)
        return report


def _write_and_measure(
    judge: Judge, folder: Path, *, config: ExportConfig, material: Material
) -> ParityReport:
    """Writes the towers; where int8 is too far off, again with more and more of its worst layers left in float32."""
    loaded = judge.loaded
    held_back: dict[str, tuple[str, ...]] = {}
    while True:
        files, settings = write_towers(judge, folder, config=config, material=material, held_back=held_back)
        _write_probes(judge, folder, config=config, was_run=False)
        if material.labels:
            (folder / LABELS_FILE).write_text("\n".join(material.labels) + "\n", encoding="utf-8")
            files["labels"] = LABELS_FILE
        files["probes"] = PROBES_FILE
        manifest = describe(loaded, folder, config=config, files=files, settings=settings)
        write_manifest(folder, manifest)
        report = _measure(judge, folder, config=config)
        more = _hold_back(report, held_back, config=config)
        if report.passed or config.precision not in CALIBRATED or more == held_back:
            break
        held_back = more
    _write_probes(judge, folder, config=config, was_run=report.was_run)
    if config.target == "web":
        report, about = _open_page(judge, folder, report, config=config, material=material)
        settings |= about
        write_manifest(folder, replace(manifest, settings=settings))
    write_card(folder, manifest, report)
    files["card"] = CARD_FILE
    manifest = describe(loaded, folder, config=config, files=files, settings=settings)
    write_manifest(folder, replace(manifest, parity=report.to_json()))
    return report


def _open_page(
    judge: Judge, folder: Path, report: ParityReport, *, config: ExportConfig, material: Material
) -> tuple[ParityReport, dict[str, JsonValue]]:
    """Writes the page's index, and runs the page: the report with what it gave, and settings for the manifest."""
    about: dict[str, JsonValue] = {}
    if material.pictures is not None:
        model = ExportedModel(folder, towers=open_towers(folder, config=config), verify=False)
        gallery = write_gallery(folder, material.pictures, model=model)
        about |= {"pictures": GALLERY_FILE, "unreadable": list(gallery.unreadable)}
    if not report.passed:
        return report, about
    report, browser = measure_page(report, folder, judge=judge, config=config)
    return report, {**about, "browser": browser}


def _measure(judge: Judge, folder: Path, *, config: ExportConfig) -> ParityReport:
    """Runs the gate; where it fails, finds the layers that are to blame."""
    try:
        towers = open_towers(folder, config=config)
    except CannotRunError:
        return ParityReport(towers=(), agreement=None, allowed=config.gate, was_run=False)
    wanted = {role: judge.expected[role] for role in config.towers}
    exported = ExportedModel(folder, towers=towers, verify=False)
    report = measure(
        exported,
        reference=judge.loaded,
        expected=wanted,
        probes=judge.probes,
        config=config,
    )
    if report.passed or config.target not in _EXPLAINED:
        return report
    from pocketclip.export.layers import compare_layers  # these targets' extras bring onnx

    to_blame: list[LayerDifference] = []
    for role in dict.fromkeys([*(entry.tower for entry in report.failures), *config.towers]):
        inputs = _inputs(judge.loaded, judge.probes, role=role, num=8)
        path = folder / exported.manifest.files[role].name
        to_blame += compare_layers(judge, path, role=role, inputs=inputs, pixels=exported.manifest.pixels)
    to_blame.sort(key=lambda one: -one.own_error)
    return replace(report, layers=tuple(to_blame[: max(_LAYERS, config.max_sensitive)]))


def _hold_back(
    report: ParityReport, before: dict[str, tuple[str, ...]], *, config: ExportConfig
) -> dict[str, tuple[str, ...]]:
    """The layers held back before and the next few that differ most, at most `max_sensitive` in all."""
    room = config.max_sensitive - sum(len(names) for names in before.values())
    step = max(1, config.max_sensitive // 3)
    known = {(role, name) for role, names in before.items() for name in names}
    worst = [one for one in report.layers if (one.tower, one.layer) not in known][: min(step, room)]
    after = {role: list(names) for role, names in before.items()}
    for one in worst:
        after.setdefault(one.tower, []).append(one.layer)
    return {role: tuple(names) for role, names in after.items()}


def write_towers(
    judge: Judge,
    folder: Path,
    *,
    config: ExportConfig,
    material: Material,
    held_back: dict[str, tuple[str, ...]],
) -> tuple[dict[str, str], dict[str, JsonValue]]:
    """Writes the towers and the tokenizer into a folder: role -> file name, and how they were made."""
    module, loaded = target_module(config.target), judge.loaded
    files: dict[str, str] = {}
    settings: dict[str, JsonValue] = {"torch": version("torch")}
    for role in config.towers:
        pairs = material.calibrated_on
        odd = (
            PROBE_TEXTS if len(pairs) else ()
        )  # captions alone are all alike: a long text would leave their range
        calibrated = Probes(images=pairs.images, texts=(*odd, *pairs.texts))
        inputs = _inputs(loaded, calibrated, role=role, num=config.num_calibration)
        if role == "image" and config.pixels == "float32" and len(inputs):
            inputs = loaded.config.preprocess.normalise(inputs.astype(np.uint8))
        tower, example = judge.tower(role, config=config, inputs=inputs)
        written = module.write(
            TowerRequest(
                role=role,
                tower=tower,
                example=example,
                plain=partial(
                    judge.traced,
                    role,
                    pixels=config.pixels,
                    opset=config.opset,
                    tuning_steps=config.tunes,
                ),
                save=partial(_save, loaded),
                pixels=config.pixels,
                folder=folder,
                precision=config.precision,
                opset=config.opset,
                calibration=inputs,
                held_back=held_back.get(role, ()),
                has_small_table=config.has_small_table,
            )
        )
        files |= written.files
        settings[role] = written.settings
    if "text" in config.towers:
        (folder / TOKENIZER_FILE).write_text(loaded.tokenizer.to_json(), encoding="utf-8")
        files["tokenizer"] = TOKENIZER_FILE
    if config.target == "web":
        settings |= write_site(folder)
    return files, settings


def open_towers(folder: Path, *, config: ExportConfig) -> dict[str, Tower]:
    """The towers of a folder, opened by what writes them.

    Raises:
        ParityError: one cannot be loaded.
        CannotRunError: nothing on this machine runs the target.
    """
    module = target_module(config.target)
    manifest = ExportedModel(folder, verify=False).manifest
    towers = {}
    for role in config.towers:
        path = folder / manifest.files[role].name
        try:
            towers[role] = module.open_tower(path, precision=config.precision)
        except TowerError as error:
            raise ParityError(f"the exported model does not run: {path.name}: {error}") from error
    return towers


def describe(
    loaded: Loaded,
    folder: Path,
    *,
    config: ExportConfig,
    files: dict[str, str],
    settings: dict[str, JsonValue],
) -> Manifest:
    """The manifest of a checkpoint whose files are in the folder; nothing is said of parity yet."""
    names = [name for name, row in VARIANTS.items() if row.model == loaded.config.model]
    return Manifest(
        model=names[0] if names else "custom",
        checkpoint=loaded.digest,
        embed_dim=loaded.config.model.embed_dim,
        logit_scale=float(loaded.model.logit_scale.detach().float().exp()),
        preprocess=loaded.config.preprocess,
        context_length=loaded.config.tokenizer.context_length,
        target=config.target,
        precision=config.precision,
        pixels=config.pixels,
        settings=settings,
        files={role: describe_file(folder / name) for role, name in files.items()},
        parity={},
    )


def _write_probes(judge: Judge, folder: Path, *, config: ExportConfig, was_run: bool) -> None:
    """The first few probes, by which another machine checks itself: with what the gate saw the export give for them.

    Where nothing here runs the target, and before the gate does, with what the checkpoint gives.
    """
    towers = open_towers(folder, config=config) if was_run else {}
    probes = {}
    for role in config.towers:
        inputs = _inputs(judge.loaded, judge.probes, role=role, num=_CARRIED)
        embed_PD = judge.expected[role][:_CARRIED]
        if towers:
            preprocess = judge.loaded.config.preprocess
            embed_PD = feed(towers[role], inputs, preprocess=preprocess, pixels=config.pixels)
        probes[role] = TowerProbes(inputs=inputs, embed_PD=embed_PD)
    write_probes(folder, probes)


def _inputs(loaded: Loaded, probes: Probes, *, role: str, num: int) -> npt.NDArray[np.generic]:
    """The first probes as they are kept: uint8 pixels [N, H, W, 3], or tokens [N, L]; empty where there are none."""
    if role == "text":
        texts = list(probes.texts[:num])
        return loaded.tokenize(texts).numpy() if texts else np.empty((0,))
    images = probes.images[:num]
    return (
        np.stack([loaded.config.preprocess.pixels(image) for image in images]) if images else np.empty((0,))
    )


def _save(loaded: Loaded, path: Path) -> None:
    save(path, loaded.model, config=loaded.config, tokenizer=loaded.tokenizer)


def _require_finite(loaded: Loaded) -> None:
    broken = [name for name, value in loaded.model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        listed = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
        raise ParityError(
            f"the checkpoint's weights are not finite ({listed}): the run diverged; export an earlier "
            f"checkpoint, or train again with a lower learning rate"
        )
