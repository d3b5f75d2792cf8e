"""`pocketclip convert`: one checkpoint from another, of any layout."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.verbs import Outcome


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn a checkpoint of open_clip, Apple or a training loop into one of pocketclip, or the other way round.

    SOURCE is a file (.safetensors, .pt, .pth, .bin), a folder with one (a run's, or one of open_clip's with its
    open_clip_config.json), or hf-hub:ORG/NAME. Nothing in it is executed. Its layout and variant are found out by names
    and shapes; a tensor that is missing, surplus or of another shape is an error that names it.

    --to pocketclip   one file, for every verb here (the default)
    --to open_clip    a folder for open_clip.create_model("local-dir:OUT") and for the hub; or, where OUT ends in
                      .safetensors or .pt, a file for open_clip.create_model(NAME, pretrained=OUT)
    --to timm         the image tower alone, for timm.create_model(NAME, num_classes=D, checkpoint_path=OUT)
    --to apple-v1     a file in the layout of Apple's first release (MobileCLIP-S0, -S1, -S2, -B)

    Examples:
        pocketclip convert mobileclip2_s0.pt s0.safetensors
        pocketclip convert hf-hub:apple/MobileCLIP-S2-OpenCLIP s2.safetensors --variant MobileCLIP-S2
        pocketclip convert runs/student/checkpoint.safetensors student/ --to open_clip
        pocketclip convert checkpoint.safetensors student.pt --to open_clip
    """

    source: Positional[str]
    """A file, a folder, or hf-hub:ORG/NAME[@REVISION]."""
    out: Positional[Path]
    """File to write; for open_clip a folder or a file."""
    variant: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: found out)")] = None
    """What SOURCE has to hold, such as MobileCLIP2-S0."""
    to: Literal["pocketclip", "open_clip", "timm", "apple-v1"] = "pocketclip"
    """Layout to write."""
    last: bool = False
    """Of a training checkpoint with a moving average, take the last weights instead."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Converts."""
        require("convert", ("train",))
        from pocketclip.checkpoint.conversion import convert

        done = convert(self.source, self.out, variant=self.variant, to=self.to, moving_average=not self.last)
        parts = {"image": done.num_image_parameters, "text": done.num_text_parameters}
        if done.num_decoder_parameters:
            parts["decoder"] = done.num_decoder_parameters
        numbers = " + ".join(f"{count / 1e6:.1f}" for count in parts.values())
        millions = f"{numbers} million parameters ({' + '.join(parts)}, un-folded)"
        lines = [
            f"read     {done.file}: {done.variant or 'no known variant'}, {done.layout} layout, "
            f"{done.num_tensors} tensors, {millions}",
            *(f"note     {note}" for note in done.notes),
            f"written  {done.out}: {done.to} layout",
            f"digest   {done.digest}",
        ]
        if done.usage:
            lines.append(f"load it  {done.usage}")
        elif done.to == "open_clip":
            lines.append("load it  open_clip has no name for this model: convert it into a folder instead")
        return Outcome("\n".join(lines), asdict(done))
