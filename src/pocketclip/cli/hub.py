"""The verb that puts a model on a hub."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.verbs import Outcome


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Publish a checkpoint on the Hugging Face hub, for pocketclip and for open_clip, with a model card.

    Log in first (`hf auth login`), with a token that may write. All files appear in one commit, or none.

    Examples:
        pocketclip upload runs/student/checkpoint.safetensors my-name/my-model --license apache-2.0
        pocketclip upload checkpoint.safetensors my-name/my-model --private --revision trial
    """

    checkpoint: Positional[Path]
    """File written by `pocketclip train` or `pocketclip convert`."""
    repo_id: Positional[str]
    """ORG/NAME; the repository is made where it does not exist."""
    private: bool = False
    """Only its owners may see it."""
    license: str = "unknown"
    """An identifier of the hub: apache-2.0, cc-by-4.0, other."""
    revision: Annotated[str | None, arg(help_behavior_hint="(default: main)")] = None
    """Branch to commit to, made where it does not exist."""
    message: str = "Upload a pocketclip model"
    """Of the commit."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Uploads."""
        require("upload", ("train",))
        if not self.checkpoint.is_file():
            what = "is a folder, not a checkpoint file" if self.checkpoint.is_dir() else "does not exist"
            raise FileNotFoundError(f"{self.checkpoint} {what}: give a file written by `pocketclip train`")
        from pocketclip.checkpoint.hub import save_to_hub
        from pocketclip.checkpoint.store import load

        uploaded = save_to_hub(
            load(self.checkpoint),
            self.repo_id,
            private=self.private,
            revision=self.revision,
            commit_message=self.message,
            license=self.license,
        )
        lines = [f"{uploaded.url}", *(f"{'':8} {name}" for name in uploaded.files)]
        if uploaded.without_open_clip is not None:
            lines.append(f"without open_clip's layout: {uploaded.without_open_clip}")
        at = f"@{self.revision}" if self.revision else ""
        lines.append(f'load it: pocketclip.load("hf-hub:{uploaded.repo_id}{at}")')
        return Outcome("\n".join(lines), asdict(uploaded))
