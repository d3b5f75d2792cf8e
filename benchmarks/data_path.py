"""How long does one core take to make a training sample, beside the published way of doing it?

    .venv/bin/python benchmarks/data_path.py                          # pictures drawn for the purpose
    .venv/bin/python benchmarks/data_path.py --photos FOLDER          # photographs, shrunk to 512 pixels
    .venv/bin/python benchmarks/data_path.py --photos FOLDER --shorter-side

The published way is re-created from public libraries: `webdataset` reads tars of `jpg`, `txt`, `syn.json`, `paug.json`
and `pth.gz` and has Pillow decode the picture as RGBA; it is made RGB, torchvision replays the stored view and
normalises it, open_clip's `SimpleTokenizer` encodes one true and one synthetic caption, torch loads the embeddings of
30 views and 6 captions (two teachers of width 768, bfloat16). Ours reads the same pictures, captions, views and
embeddings from a reinforced shard; pixels stay uint8, for the device to normalise. All in one process and one thread.
Contenders take turns with all samples, another begins each round; times are the processor's, medians of the rounds, and
so are their ratios. Pictures are as such data sets have them: the longer side 512 pixels, quality 95.

Prints Markdown: milliseconds a sample, then of each stage alone, then what fast pixels differ by. Needs `webdataset`
and the extra `teachers`.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
import webdataset
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision
from torchvision.transforms.autoaugment import _apply_op

from pocketclip.data.augment import Augmentation, AugmentSpec, apply_to_crop, draw, magnitudes, pack, unpack
from pocketclip.data.batch import StreamConfig
from pocketclip.data.builder import BatchBuilder, Plan
from pocketclip.data.picture import Decoding, open_picture
from pocketclip.data.reinforcement import (
    BLOCK_NAME,
    Embeddings,
    Reinforcement,
    TeacherRecord,
    pack_reinforcement,
    read_rows,
)
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.data.words import END_OF_WORD, read_merges, shipped_merges

LONGEST_PX, QUALITY = 512, 95
TEACHERS, WIDTH, TEACHER_PX = ("first", "second"), 768, 224
NUM_VIEWS, NUM_SYNTHETIC = 30, 5
DECODINGS: tuple[Decoding, ...] = ("exact", "fast")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# torchvision's names of RandAugment's operations, in the published order.
NAMES = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)


# One stored view: top, left, height, width, and pairs (operation, magnitude).
Params = tuple[tuple[int, int, int, int], Sequence[tuple[int, float]]]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    photos: Path | None = None
    """A folder of pictures; none for drawn ones, which compress about as photographs do."""
    num_samples: int = 256
    """Pictures."""
    rounds: int = 7
    """Turns of each contender."""
    image_px: int = 256
    """Side of the pictures that the student takes."""
    batch_size: int = 64
    """Samples of a batch."""
    shorter_side: bool = False
    """Shrink the shorter side to 512 pixels, rather than the longer one."""


class Data(NamedTuple):
    """The same samples, in both layouts."""

    published: Path
    ours: Path
    pictures: list[bytes]
    views: list[list[Augmentation]]


def main(arguments: Arguments) -> None:
    """Measures in turn, prints."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder), arguments)
        kilobytes = statistics.mean(map(len, data.pictures)) / 1000
        where = f"from {arguments.photos.name}" if arguments.photos else "drawn"
        print(f"{len(data.pictures)} pictures {where}, {kilobytes:.0f} kB each; Pillow {Image.__version__}\n")
        contenders: dict[str, Callable[[], None]] = {
            "published": lambda: published(data, arguments),
            "exact": ours(data, arguments, "exact"),
            "fast": ours(data, arguments, "fast"),
        }
        times = in_turn(contenders, rounds=arguments.rounds, num=len(data.pictures))
        print("| way | ms a sample | samples/s | times the published |\n|---|---|---|---|")
        for name, each in times.items():
            gain = statistics.median(a / b for a, b in zip(times["published"], each, strict=True))
            ms = statistics.median(each)
            print(f"| {name} | {ms:.2f} | {1000 / ms:.0f} | {gain:.2f} |")
        stages = in_turn(all_stages(data, arguments), rounds=arguments.rounds, num=len(data.pictures))
        names = dict.fromkeys(stage for stage, _ in stages)
        print("\n| stage, ms a sample | published | exact | fast |\n|---|---|---|---|")
        for stage in names:
            cells = (
                f"{statistics.median(stages[stage, way]):.2f}" if (stage, way) in stages else ""
                for way in contenders
            )
            print(f"| {stage} | {' | '.join(cells)} |")
        print_differences(data, arguments)


def print_differences(data: Data, arguments: Arguments) -> None:
    """What fast pixels differ by from exact ones, in levels of 255."""
    print("\n| fast against exact | mean | 99% below | largest |\n|---|---|---|---|")
    for name, num_ops in (("crop and resize alone", 0), ("with RandAugment", 2)):
        spec, levels = AugmentSpec(num_ops=num_ops), []
        for picture, (view, *_) in zip(data.pictures, data.views, strict=True):
            own = replace(view, operations=view.operations[:num_ops])
            seen = {}
            for decoding in DECODINGS:
                region = open_picture(picture, name="it").region(
                    view.crop, at_least=arguments.image_px, decoding=decoding
                )
                quick = decoding == "fast"
                made = apply_to_crop(
                    region.image, own, size=arguments.image_px, spec=spec, box=region.box, quick=quick
                )
                seen[decoding] = np.asarray(made).astype(np.int16)
            levels.append(np.abs(seen["fast"] - seen["exact"]).ravel())
        found = np.concatenate(levels)
        print(f"| {name} | {found.mean():.2f} | {np.percentile(found, 99):.0f} | {found.max()} |")


def in_turn(contenders: dict[Any, Callable[[], None]], *, rounds: int, num: int) -> dict[Any, list[float]]:
    """Milliseconds a sample of each round, after one that does not count."""
    times: dict[Any, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for turn in range(rounds + 1):
        for name in order:
            start = time.process_time()
            contenders[name]()
            if turn:
                times[name].append(1000 * (time.process_time() - start) / num)
        order = order[1:] + order[:1]
    return times


def make_data(folder: Path, arguments: Arguments) -> Data:
    """Pictures, captions, views and embeddings, as a published tar and as a reinforced shard."""
    rng = random.Random(0)
    pictures = list(encoded_pictures(arguments, rng))
    words = [left + right for left, right in read_merges(shipped_merges()) if right.endswith(END_OF_WORD)]
    words = [word.removesuffix(END_OF_WORD) for word in words[:12_000] if word.isascii()]

    def caption(num_words: int) -> str:  # frequent words first, as in language
        return " ".join(words[int(len(words) * rng.random() ** 3)] for _ in range(num_words))

    samples = [
        Sample(
            key=f"{number:08d}",
            image=picture,
            extension="jpg",
            captions=(caption(12),),
            synthetic={"syn_text": tuple(caption(10) for _ in range(NUM_SYNTHETIC))},
        )
        for number, picture in enumerate(pictures)
    ]
    spec = AugmentSpec()
    views = []
    for picture in pictures:
        width, height = Image.open(io.BytesIO(picture)).size
        views.append([draw(rng, width=width, height=height, spec=spec) for _ in range(NUM_VIEWS)])
    generator = np.random.default_rng(0)
    embeddings = {
        name: Embeddings(
            image_NAD=unit_rows(generator, (len(samples), NUM_VIEWS, WIDTH)),
            text_TD=unit_rows(generator, (len(samples) * (1 + NUM_SYNTHETIC), WIDTH)),
        )
        for name in TEACHERS
    }
    block = pack_reinforcement(
        config_digest="0" * 64,
        input_sha256="0" * 64,
        augment=spec,
        codec="bf16",
        params_NAP=np.array([[pack(view) for view in own] for own in views]),
        text_counts=[1 + NUM_SYNTHETIC] * len(samples),
        teachers=[
            (TeacherRecord(name=name, embed_dim=WIDTH, logit_scale=100.0, digest="0" * 64), rows)
            for name, rows in embeddings.items()
        ],
        dropped={},
    )
    ours = folder / "train" / "000000.tar"
    write_shard(ours, samples, blocks={BLOCK_NAME: block})
    published = folder / "published.tar"
    write_published(published, samples, views, spec, list(embeddings.values()))
    return Data(published, ours, pictures, views)


def unit_rows(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    rows = generator.standard_normal(shape, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def encoded_pictures(arguments: Arguments, rng: random.Random) -> Iterator[bytes]:
    """JPEGs of 512 pixels."""
    if arguments.photos is None:
        sources: Sequence[Path | None] = [None] * arguments.num_samples
    else:
        files = sorted(path for path in arguments.photos.iterdir() if path.is_file())
        sources = files[:: max(1, len(files) // arguments.num_samples)][: arguments.num_samples]
    for source in sources:
        image = Image.open(source).convert("RGB") if source else drawn_picture(rng)
        side = min(image.size) if arguments.shorter_side else max(image.size)
        size = tuple(max(1, round(LONGEST_PX * own / side)) for own in image.size)
        file = io.BytesIO()
        image.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=QUALITY)
        yield file.getvalue()


def drawn_picture(rng: random.Random) -> Image.Image:
    """Smooth noise of every scale: as many bytes as a photograph."""
    pixels = np.zeros((576, 768, 3), np.float32)
    generator = np.random.default_rng(rng.getrandbits(32))
    for octave in range(8):
        rows, columns = 3 * 2**octave, 4 * 2**octave
        noise = generator.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((768, 576), Image.Resampling.BICUBIC)
        pixels += (np.asarray(layer, dtype=np.float32) - 127.5) * 0.6**octave
    image = Image.fromarray(np.clip(pixels * 0.8 + 127.5, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 1.5)))


def write_published(
    path: Path,
    samples: Sequence[Sample],
    views: Sequence[Sequence[Augmentation]],
    spec: AugmentSpec,
    teachers: Sequence[Embeddings],
) -> None:
    """A tar as the published data sets have it, teachers side by side in each row."""
    image_NAD = np.concatenate([rows.image_NAD for rows in teachers], axis=-1)
    text_NTD = np.concatenate([rows.text_TD for rows in teachers], axis=-1).reshape(
        len(samples), 1 + NUM_SYNTHETIC, -1
    )
    with tarfile.open(path, "w") as tar:
        for number, sample in enumerate(samples):
            params = [
                [list(view.crop), [list(pair) for pair in magnitudes(view, spec=spec, side=TEACHER_PX)]]
                for view in views[number]
            ]
            file = io.BytesIO()
            rows = {"image_emb": image_NAD[number], "text_emb": text_NTD[number]}
            torch.save({name: torch.tensor(array).bfloat16() for name, array in rows.items()}, file)
            members = {
                "jpg": sample.image,
                "txt": sample.captions[0].encode(),
                "syn.json": json.dumps({"syn_text": sample.synthetic["syn_text"]}).encode(),
                "paug.json": json.dumps({"param_aug": json.dumps(params)}).encode(),
                "pth.gz": gzip.compress(file.getvalue()),
                "json": json.dumps({"uid": sample.key, "sha256": "0" * 64}).encode(),
            }
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{sample.key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def published(data: Data, arguments: Arguments) -> None:
    """One pass over the tar, batch by batch."""
    rng = random.Random(0)
    tokenizer = open_clip_tokenizer()

    def sample(members: dict[str, Any]) -> tuple[Tensor, ...]:
        params = json.loads(members["paug.json"]["param_aug"])
        view, caption = rng.randrange(len(params)), rng.randrange(NUM_SYNTHETIC)
        rows = members["pth.gz"]
        return (
            replayed(members["jpg"].convert("RGB"), params[view], image_px=arguments.image_px),
            tokenizer(members["txt"])[0],
            tokenizer(members["syn.json"]["syn_text"][caption])[0],
            rows["image_emb"][view].float(),
            rows["text_emb"][0].float(),
            rows["text_emb"][1 + caption].float(),
        )

    batches = (
        webdataset.WebDataset(str(data.published), shardshuffle=False)
        .decode("pilrgba")
        .map(sample)
        .batched(
            arguments.batch_size,
            collation_fn=lambda rows: [torch.stack(row) for row in zip(*rows, strict=True)],
        )
    )
    assert sum(len(pixels_BCHW) for pixels_BCHW, *_ in batches) == len(data.pictures)


def replayed(image: Image.Image, params: Params, *, image_px: int) -> Tensor:
    """A stored view, normalised: float32 [C, H, W]."""
    (top, left, height, width), operations = params
    image = vision.resized_crop(
        image, top, left, height, width, [image_px, image_px], InterpolationMode.BICUBIC
    )
    for number, magnitude in operations:
        image = _apply_op(image, NAMES[number], magnitude, InterpolationMode.NEAREST, None)
    return vision.normalize(vision.to_tensor(image), MEAN, STD)


_TOKENIZERS: list[SimpleTokenizer] = []


def open_clip_tokenizer() -> SimpleTokenizer:
    """One, which remembers words as ours does."""
    if not _TOKENIZERS:
        _TOKENIZERS.append(SimpleTokenizer())
    return _TOKENIZERS[0]


def ours(data: Data, arguments: Arguments, decoding: Decoding) -> Callable[[], None]:
    """One pass over the shard, batch by batch; the shard is opened once."""
    config = StreamConfig(
        batch_size=arguments.batch_size,
        replay=True,
        synthetic=".*",
        decode=decoding,
        image_px=arguments.image_px,
    )
    builder = BatchBuilder([data.ours], config=config, tokenizer=Tokenizer(TokenizerConfig()))
    order = np.random.default_rng(0).permutation(builder.num_samples)

    def run() -> None:
        num = 0
        for first in range(0, len(order), arguments.batch_size):
            members = order[first : first + arguments.batch_size]
            num += len(
                builder.build(Plan(epoch=0, first=first, members=members, side=arguments.image_px)).keys
            )
        assert num == len(data.pictures)

    return run


def all_stages(data: Data, arguments: Arguments) -> dict[tuple[str, str], Callable[[], None]]:
    """Each stage alone, by stage and way."""
    px = arguments.image_px
    members = list(webdataset.WebDataset(str(data.published), shardshuffle=False))
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in data.pictures]
    params = [json.loads(json.loads(each["paug.json"])["param_aug"]) for each in members]
    reader = ShardReader(data.ours)
    block = Reinforcement(reader.block(BLOCK_NAME) or memoryview(b""), name="shard")
    samples = list(reader)
    captions = [text for sample in samples for text in (sample.captions[0], sample.synthetic["syn_text"][0])]
    theirs, tokenizer = open_clip_tokenizer(), Tokenizer(TokenizerConfig())
    spec = AugmentSpec()

    def chosen(number: int) -> int:
        return 7 * number % NUM_VIEWS

    def decode_ours(decoding: Decoding) -> Callable[[], None]:
        def run() -> None:
            for number, picture in enumerate(data.pictures):
                crop = data.views[number][chosen(number)].crop
                open_picture(picture, name="it").region(crop, at_least=px, decoding=decoding)

        return run

    def replay_ours(decoding: Decoding) -> Callable[[], None]:
        views = [unpack(block.augment_params_NAP[i, chosen(i)]) for i in range(len(samples))]
        regions = [
            open_picture(picture, name="it").region(view.crop, at_least=px, decoding=decoding)
            for picture, view in zip(data.pictures, views, strict=True)
        ]

        def run() -> None:
            for number, region in enumerate(regions):
                view = unpack(block.augment_params_NAP[number, chosen(number)])
                np.asarray(
                    apply_to_crop(
                        region.image, view, size=px, spec=spec, box=region.box, quick=decoding == "fast"
                    )
                )

        return run

    def rows_ours() -> None:
        numbers = np.arange(len(samples))
        for first in range(0, len(samples), arguments.batch_size):
            own = numbers[first : first + arguments.batch_size]
            for name in TEACHERS:
                read_rows(
                    [block],
                    teacher=name,
                    shard_B=np.zeros_like(own),
                    sample_B=own,
                    view_B=own % NUM_VIEWS,
                    text_TB=np.stack([np.zeros_like(own), 1 + own % NUM_SYNTHETIC]),
                )

    def rows_theirs() -> None:
        for number, each in enumerate(members):
            rows = torch.load(io.BytesIO(gzip.decompress(each["pth.gz"])), weights_only=True)
            (
                rows["image_emb"][chosen(number)].float(),
                rows["text_emb"][0].float(),
                rows["text_emb"][1].float(),
            )

    def tokens_ours() -> None:
        for first in range(0, len(captions), arguments.batch_size):
            tokenizer(captions[first : first + arguments.batch_size])

    stages: dict[tuple[str, str], Callable[[], None]] = {
        ("tar", "published"): lambda: drain(webdataset.WebDataset(str(data.published), shardshuffle=False)),
        ("tar", "exact"): lambda: drain(reader),
        ("decode", "published"): lambda: drain(
            Image.open(io.BytesIO(picture)).convert("RGBA").convert("RGB") for picture in data.pictures
        ),
        ("decode", "exact"): decode_ours("exact"),
        ("decode", "fast"): decode_ours("fast"),
        ("replay", "published"): lambda: drain(
            replayed(image, params[number][chosen(number)], image_px=px)
            for number, image in enumerate(images)
        ),
        ("replay", "exact"): replay_ours("exact"),
        ("replay", "fast"): replay_ours("fast"),
        ("tokens", "published"): lambda: drain(theirs(caption) for caption in captions),
        ("tokens", "exact"): tokens_ours,
        ("rows", "published"): rows_theirs,
        ("rows", "exact"): rows_ours,
    }
    return stages


def drain(items: Iterable[object]) -> None:
    """Makes all of them."""
    for _ in items:
        pass


if __name__ == "__main__":
    main(tyro.cli(Arguments))
