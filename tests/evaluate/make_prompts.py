"""Makes `pocketclip/evaluate/prompts.json` of what clip_benchmark ships: `python tests/evaluate/make_prompts.py`."""

from __future__ import annotations

import ast
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clip_benchmark.datasets import builder

FILE = Path(__file__).parents[2] / "src/pocketclip/evaluate/prompts.json"
SUBSETS = ("imagenet-a", "imagenet-o", "imagenet-r")


def shipped(kind: str) -> dict[str, Any]:
    """One of clip_benchmark's English tables."""
    return json.loads((Path(builder.__file__).parent / f"en_{kind}.json").read_text(encoding="utf-8"))


def subset(name: str) -> list[int]:
    """Classes of ImageNet, by number, that a shifted set has: the WordNet ids are written in clip_benchmark's code."""
    variable = f"{name.replace('-', '_')}_wnids"
    code = Path(builder.__file__).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == variable:
            wanted = set(ast.literal_eval(node.value))
            return [i for i, wnid in enumerate(builder.all_imagenet_wordnet_ids) if wnid in wanted]
    raise AssertionError(f"clip_benchmark has no {variable}")


def collect() -> dict[str, Any]:
    """All that is shipped."""
    return {
        "source": f"clip_benchmark {version('clip_benchmark')}, https://github.com/LAION-AI/CLIP_benchmark",
        "licence": "MIT, Copyright (c) 2022, Mehdi Cherti",
        "class_names": shipped("classnames"),
        "templates": shipped("zeroshot_classification_templates"),
        "wordnet_ids": list(builder.all_imagenet_wordnet_ids),
        "imagenet_subsets": {name: subset(name) for name in SUBSETS},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(collect(), ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")
