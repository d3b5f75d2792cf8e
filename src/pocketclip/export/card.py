"""What an exported folder says of itself to people."""

from __future__ import annotations

from pathlib import Path

from pocketclip.data.publish import publish_file
from pocketclip.export.report import ParityReport
from pocketclip.runtime import Manifest

CARD_FILE = "README.md"


def write_card(folder: Path, manifest: Manifest, report: ParityReport) -> None:
    """Writes `README.md`: what the folder holds, how to feed it, what the gate measured."""
    verdict = "passed" if report.passed else "**FAILED**, published by force" if report.was_run else "not run"
    preprocess = manifest.preprocess
    lines = [
        f"# {manifest.model}, {manifest.target} {manifest.precision}",
        "",
        f"Image and text embeddings of {manifest.embed_dim} numbers, of length 1, exported by pocketclip from the "
        f"checkpoint `{manifest.checkpoint[:16]}`.",
        "",
        "| file | for | bytes |",
        "|---|---|---|",
        *(f"| `{file.name}` | {role} | {file.num_bytes:,} |" for role, file in manifest.files.items()),
        "",
        f"Pictures: upright, RGB, shortest side to {preprocess.size} ({preprocess.interpolation}, antialiased), centre "
        f"square, "
        + (
            "8-bit, rows of pixels of channels; the network scales and normalises them."
            if manifest.pixels == "uint8"
            else f"divided by 255, minus {list(preprocess.mean)}, divided by {list(preprocess.std)}, channels first."
        ),
        f"Texts: `tokenizer.json`, {manifest.context_length} tokens. Temperature: cosines times "
        f"{manifest.logit_scale:.4g} before a softmax.",
        "",
        f"Parity with the checkpoint: {verdict}.",
        "",
    ]
    lines += [f"- {line}" for line in str(report).splitlines()]
    if (agreed := report.agreement) is not None:
        lines.append(
            f"- on {agreed.num_pairs} real pairs: same best caption {agreed.top1:.1%}, overlap of the ten best "
            f"{agreed.recall10:.1%}, same of 20 classes {agreed.zero_shot:.1%}, margin {agreed.margin:.3f} of the "
            f"checkpoint's"
        )
    with publish_file(folder / CARD_FILE) as file:
        file.write(("\n".join(lines) + "\n").encode())
