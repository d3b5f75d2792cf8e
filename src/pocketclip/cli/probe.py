"""`pocketclip probe`: what a frozen model's features tell a simple classifier; and videos, zero-shot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.verbs import Outcome, UsageError

if TYPE_CHECKING:
    from pocketclip.evaluate.rows import Row


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Measure frozen features by a linear probe and by nearest neighbours, or name videos zero-shot.

    The linear probe is softmax regression, its penalty chosen on held-out training pictures; nearest neighbours vote by
    similarity. Features are embeddings of unit length, kept beside --out, so that a second run embeds nothing.
    With --videos a few frames of each are embedded and averaged, and compared with prompts of the class names.

    Examples:
        pocketclip probe runs/kd/checkpoint.safetensors --train flowers/train --test flowers/test --out results.jsonl
        pocketclip probe MobileCLIP2-S0 --train photos@train --test photos@validation --kind knn
        pocketclip probe runs/kd/checkpoint.safetensors --videos clips/ --out results.jsonl
    """

    model: Positional[str]
    """Checkpoint, exported folder, or whatever `pocketclip evaluate --tasks` takes."""
    train: Annotated[str | None, arg(metavar="FOLDER[@SPLIT]", help_behavior_hint="(default: none)")] = None
    """Training pictures: a folder for each class, or a split of a packed folder, where the caption is the class."""
    test: Annotated[str | None, arg(metavar="FOLDER[@SPLIT]", help_behavior_hint="(default: none)")] = None
    """Test pictures."""
    videos: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: none)")] = None
    """Videos: a folder for each class."""
    name: Annotated[str | None, arg(help_behavior_hint="(default: the folder's)")] = None
    """Of the set, in the results' keys."""
    kind: Annotated[tuple[Literal["linear", "knn"], ...], arg(metavar="linear|knn ...")] = ("linear", "knn")
    """Probes."""
    neighbours: int = 20
    """Of the nearest-neighbour probe."""
    temperature: float = 0.07
    """Of its votes."""
    held_out: float = 0.2
    """Share of the training pictures by which the linear probe's penalty is chosen."""
    frames: int = 8
    """Of each video."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, mps."""
    out: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    """Result file, one JSON object a line; other sets in it are kept."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Probes."""
        if (self.videos is None) == (self.train is None and self.test is None):
            raise UsageError("probe needs --train and --test, or --videos")
        if self.videos is None and (self.train is None or self.test is None):
            raise UsageError("probe needs both --train and --test")
        require("probe", ("train",), device=self.device)
        rows = self._videos(self.videos) if self.videos is not None else self._pictures()
        lines = [_line(row) for row in rows]
        for row in rows[:1]:
            dropped = row.details.get("dropped")
            lines += [f"left out: {one}" for one in dropped] if isinstance(dropped, list) else []
        lines += [f"written: {self.out}"] if self.out else []
        values = {row.key: {"metrics": dict(row.metrics), "pocketclip": dict(row.details)} for row in rows}
        return Outcome("\n".join(lines), values)

    def _pictures(self) -> tuple[Row, ...]:
        from pocketclip.evaluate.probe import ProbeConfig, probe

        assert self.train is not None
        assert self.test is not None
        config = ProbeConfig(
            kinds=self.kind,
            neighbours=self.neighbours,
            temperature=self.temperature,
            held_out=self.held_out,
            device=self.device,
        )
        folder = Path(self.test.partition("@")[0])
        plain = folder.parent if folder.name in ("test", "val", "validation") else folder
        cache = self.out.with_name(f"{self.out.stem}.files") / "features" if self.out else None
        return probe(
            self.model,
            self.train,
            self.test,
            name=self.name or plain.resolve().name,
            out=self.out,
            cache=cache,
            config=config,
        )

    def _videos(self, folder: Path) -> tuple[Row, ...]:
        from pocketclip.evaluate.video import VideoConfig, evaluate_videos

        config = VideoConfig(num_frames=self.frames, device=self.device)
        return (evaluate_videos(self.model, folder, name=self.name, out=self.out, config=config).row,)


def _line(row: Row) -> str:
    metrics = {
        name: value for name, value in row.metrics.items() if value is not None and name != "main_metric"
    }
    interval = row.details.get("interval")
    sure = ""
    if isinstance(interval, dict):
        low, high = interval["low"], interval["high"]
        assert isinstance(low, float)
        assert isinstance(high, float)
        sure = f" [{100 * low:.1f}, {100 * high:.1f}]"
    words = [
        f"{name} {100 * value:.1f}" + (sure if name == "acc1" else "") for name, value in metrics.items()
    ]
    return f"{row.dataset}: " + ", ".join(words)
