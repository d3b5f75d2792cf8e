"""The total loss of reinforced training, forward and backward: two plain forms of it against `reinforced_loss`.

    chrt -f 20 .venv/bin/python benchmarks/losses.py
    .venv/bin/python benchmarks/losses.py --batch-size 2048 --rounds 5

Each round runs all three in processes of their own, one after the other, so that each has its own peak of memory: a
student of width 512, two teachers of width 768, ground-truth and synthetic captions. Prints medians, ratios and the
largest difference of the gradients.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pocketclip.losses import PairRows, TeacherRows, reinforced_loss

LAMBDA = 0.7
SCALES = (70.0, 60.0)


def unit(num: int, width: int, generator: torch.Generator) -> Tensor:
    return F.normalize(torch.randn(num, width, generator=generator), dim=1)


def inputs(batch_size: int) -> dict:
    """Rows of a student and two teachers: pictures, and two kinds of caption."""
    generator = torch.Generator().manual_seed(0)
    student = [unit(batch_size, 512, generator).requires_grad_() for _ in range(3)]
    teachers = [[unit(batch_size, 768, generator) for _ in range(3)] for _ in SCALES]
    return {
        "student": student,
        "teachers": teachers,
        "scale": torch.tensor(60.0, requires_grad=True),
    }


def lean(student: list[Tensor], teachers: list[list[Tensor]], scale: Tensor) -> Tensor:
    """The same with each product computed once for both directions."""
    image, label = student[0], torch.arange(len(student[0]))
    total = image.new_zeros(())
    for kind in (1, 2):
        logits = scale * image @ student[kind].T
        clip = (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2
        rows, columns = F.log_softmax(logits, 1), F.log_softmax(logits.T, 1)
        distill = image.new_zeros(())
        for rows_of, teacher_scale in zip(teachers, SCALES, strict=True):
            target = teacher_scale * rows_of[0] @ rows_of[kind].T
            for ours, theirs in ((rows, target), (columns, target.T)):
                log_theirs = F.log_softmax(theirs, 1)
                distill = distill + F.kl_div(ours, log_theirs, reduction="batchmean", log_target=True)
        total = total + (1 - LAMBDA) * clip + LAMBDA * distill / (2 * len(teachers))
    return total / 2


def published(student: list[Tensor], teachers: list[list[Tensor]], scale: Tensor) -> Tensor:
    """As the published training code and open_clip write it: a product of its own for each direction."""
    image, label = student[0], torch.arange(len(student[0]))
    total = image.new_zeros(())
    for kind in (1, 2):
        text = student[kind]
        ours = (scale * image @ text.T, scale * text @ image.T)
        clip = sum(F.cross_entropy(logits, label) for logits in ours) / 2
        distill = image.new_zeros(())
        for rows_of, teacher_scale in zip(teachers, SCALES, strict=True):
            theirs = (
                teacher_scale * rows_of[0] @ rows_of[kind].T,
                teacher_scale * rows_of[kind] @ rows_of[0].T,
            )
            for logits, target in zip(ours, theirs, strict=True):
                distill = distill - (target.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        total = total + (1 - LAMBDA) * clip + LAMBDA * distill / (2 * len(teachers))
    return total / 2


def ours(student: list[Tensor], teachers: list[list[Tensor]], scale: Tensor) -> Tensor:
    total = student[0].new_zeros(())
    for kind in (1, 2):
        rows = {
            str(number): TeacherRows(
                pairs=PairRows(image_embed_BD=rows_of[0], text_embed_BD=rows_of[kind]),
                logit_scale=teacher_scale,
            )
            for number, (rows_of, teacher_scale) in enumerate(zip(teachers, SCALES, strict=True))
        }
        pairs = PairRows(image_embed_BD=student[0], text_embed_BD=student[kind])
        total = total + reinforced_loss(pairs, logit_scale=scale, teachers=rows, distill_weight=LAMBDA).loss
    return total / 2


def measure(which: str, *, batch_size: int, threads: int, gradients: Path) -> None:
    torch.set_num_threads(threads)
    loss = {"published": published, "lean": lean, "ours": ours}[which]
    given = inputs(batch_size)
    small = inputs(64)
    loss(**small).backward()  # libraries wake up
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    value = loss(**given)
    value.backward()
    seconds = time.perf_counter() - start
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    torch.save([given["scale"].grad, *(rows.grad for rows in given["student"])], gradients)
    print(json.dumps({"seconds": seconds, "gb": extra * 1024 / 1e9, "loss": float(value.detach())}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--which", choices=("published", "lean", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--gradients", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.which:
        measure(asked.which, batch_size=asked.batch_size, threads=asked.threads, gradients=asked.gradients)
        return
    import tempfile

    found: dict[str, list[dict[str, float]]] = {"published": [], "lean": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.rounds):
            for which, runs in found.items():
                # fmt: off
                command = [
                    sys.executable, __file__, "--which", which, "--batch-size", str(asked.batch_size),
                    "--threads", str(asked.threads), "--gradients", f"{folder}/{which}.pt",
                ]
                # fmt: on
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                runs.append(json.loads(done.stdout))
        pairs = zip(
            *(torch.load(f"{folder}/{which}.pt", weights_only=True) for which in ("published", "ours")),
            strict=True,
        )
        error = max(float((one - other).abs().max() / one.abs().max()) for one, other in pairs)
    median = {
        which: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for which, runs in found.items()
    }
    print(f"batch {asked.batch_size}, {asked.threads} threads, medians of {asked.rounds} rounds")
    for which, values in median.items():
        faster = values["seconds"] / median["ours"]["seconds"]
        print(f"{which:9} {values['seconds']:7.2f} s ({faster:.2f}x)  {values['gb']:6.3f} GB extra")
    print(f"gradients of the first and the last differ by at most {error:.1e} of the largest entry")


main()
