"""What models are measured on, as a table: DataComp's 38 sets and their metrics, SugarCrepe, long captions, our own.

Keys, names, sizes and main metrics are those of DataComp's suite (arXiv 2304.14108, appendix N) and of the result files
published with MobileCLIP2, so that rows written here and there can be laid side by side.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["classification", "faces", "retrieval", "associations", "choice"]
"""How a set is scored: zero-shot classes; FairFace's four questions; captions in both directions; WinoGAViL's cues;
a caption against a wrong one."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Accuracy by group, as WILDS and DataComp report it.

    Attributes:
        fields: what the numbers of a sample's metadata mean, in order.
        by: fields by which accuracy is reported; the worst group of the last is the one in `worst`.
        top: a label among the first so many counts as right.
        metric: how the metrics' names begin ("acc").
        worst: field -> name of the metric for its worst group.
    """

    fields: tuple[str, ...]
    by: tuple[str, ...]
    top: int = 1
    metric: str = "acc"
    worst: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A set and what is measured on it.

    Attributes:
        key: as published, for instance "vtab/pets".
        name: for people.
        kind: how it is scored.
        main_metric: the metric that averages take, 0..1; None where a set is in none.
        source: where to get it: a data set of the hub, or an address.
        size: pictures, as published; None where unknown.
        num_classes: of a classification; None where unknown.
        names: entry of `prompts.json` with the class names; None where they come with the set only.
        templates: entry of `prompts.json` with the templates.
        groups: accuracy by group.
    """

    key: str
    name: str
    kind: Kind = "classification"
    main_metric: str | None = "acc1"
    source: str
    size: int | None = None
    num_classes: int | None = None
    names: str | None = None
    templates: str = "imagenet1k"
    groups: Groups | None = None

    @property
    def short(self) -> str:
        """The last part of the key, by which a set may be called."""
        return self.key.rpartition("/")[2]

    @property
    def fetch_command(self) -> str:
        """The line that fetches it into the folder `{root}`."""
        if "://" in self.source:
            return f"see {self.source}, and unpack into {{root}}/{self.short}"
        folder = self.source.rpartition("/")[2] if self.source.startswith("djghosh/") else self.short
        # the hub keeps pictures of sets that came with a script as Parquet in a branch of its own
        branch = " --revision refs/convert/parquet" if self.source.startswith("nlphuji/") else ""
        return f"hf download {self.source} --repo-type dataset{branch} --local-dir {{root}}/{folder}"


IWILDCAM = ("location", "sequence", "year", "month", "day", "hour", "minute", "second", "y")
FACE_FIELDS = ("age", "gender", "race", "race_binary")
"""What the numbers of FairFace's and UTKFace's metadata mean."""


def _mirrored(
    key: str,
    name: str,
    size: int,
    num_classes: int | None,
    *,
    metric: str | None = "acc1",
    names: str | None = None,
    templates: str = "imagenet1k",
    kind: Kind = "classification",
    groups: Groups | None = None,
) -> Task:
    """A set of DataComp's public mirror, one folder of WebDataset shards each."""
    folder = key.removeprefix("fairness/").replace("/", "-")
    return Task(
        key=key,
        name=name,
        kind=kind,
        main_metric=metric,
        source=f"djghosh/wds_{folder}_test",
        size=size,
        num_classes=num_classes,
        names=names,
        templates=templates,
        groups=groups,
    )


def _own(key: str, name: str, size: int, num_classes: int, *, names: str | None = None) -> Task:
    """A mirrored set with templates of its own name, and of mean per-class recall where DataComp takes that."""
    short = key.rpartition("/")[2]
    recall = short in ("caltech101", "fgvc_aircraft", "flowers", "pets")
    return _mirrored(
        key,
        name,
        size,
        num_classes,
        metric="mean_per_class_recall" if recall else "acc1",
        names=names,
        templates=short,
    )


_CLASSIFICATION = (
    _own("vtab/caltech101", "Caltech-101", 6085, 102, names="caltech101_vtab"),
    _own("cifar10", "CIFAR-10", 10000, 10),
    _own("vtab/cifar100", "CIFAR-100", 10000, 100),
    _own("vtab/clevr_count_all", "CLEVR Counts", 15000, 8, names="clevr_count_all"),
    _own(
        "vtab/clevr_closest_object_distance",
        "CLEVR Distance",
        15000,
        6,
        names="clevr_closest_object_distance",
    ),
    _own("country211", "Country211", 21100, 211, names="country211"),
    _own("vtab/dtd", "Describable Textures", 1880, 47),
    _own("vtab/eurosat", "EuroSAT", 5400, 10, names="eurosat"),
    _own("fgvc_aircraft", "FGVC Aircraft", 3333, 100),
    _own("food101", "Food-101", 25250, 101),
    _own("gtsrb", "GTSRB", 12630, 43, names="gtsrb"),
    _mirrored("imagenet1k", "ImageNet 1k", 50000, 1000, names="imagenet1k"),
    _mirrored("imagenet_sketch", "ImageNet Sketch", 50889, 1000, names="imagenet1k"),
    _mirrored("imagenetv2", "ImageNet v2", 10000, 1000, names="imagenet1k"),
    _mirrored("imagenet-a", "ImageNet-A", 7500, 200, names="imagenet-a"),
    _mirrored("imagenet-o", "ImageNet-O", 2000, 200, names="imagenet-o"),
    _mirrored("imagenet-r", "ImageNet-R", 30000, 200, names="imagenet-r"),
    _own(
        "vtab/kitti_closest_vehicle_distance",
        "KITTI Vehicle Distance",
        711,
        4,
        names="kitti_closest_vehicle_distance",
    ),
    _own("mnist", "MNIST", 10000, 10, names="mnist"),
    _mirrored("objectnet", "ObjectNet", 18574, 113),
    _own("vtab/flowers", "Oxford Flowers-102", 6149, 102, names="flowers"),
    _own("vtab/pets", "Oxford-IIIT Pet", 3669, 37, names="pets"),
    _own("voc2007", "Pascal VOC 2007", 14976, 20),
    _own("vtab/pcam", "PatchCamelyon", 32768, 2, names="pcam"),
    _own("renderedsst2", "Rendered SST2", 1821, 2),
    _own("vtab/resisc45", "RESISC45", 6300, 45),
    _own("cars", "Stanford Cars", 8041, 196),
    _own("stl10", "STL-10", 8000, 10),
    _own("sun397", "SUN397", 108754, 397),
    _own("vtab/svhn", "SVHN", 26032, 10, names="svhn"),
)
_RETRIEVAL = (
    Task(
        key="retrieval/flickr_1k_test_image_text_retrieval",
        name="Flickr",
        kind="retrieval",
        main_metric="mean_recall@1",
        source="nlphuji/flickr_1k_test_image_text_retrieval",
        size=1000,
    ),
    Task(
        key="retrieval/mscoco_2014_5k_test_image_text_retrieval",
        name="MSCOCO",
        kind="retrieval",
        main_metric="mean_recall@1",
        source="nlphuji/mscoco_2014_5k_test_image_text_retrieval",
        size=5000,
    ),
)
_WINOGAVIL = Task(
    key="misc/winogavil",
    name="WinoGAViL",
    kind="associations",
    main_metric="jaccard_score_10-12",
    source="nlphuji/winogavil",
    size=3563,
)
_GROUPED = (
    _mirrored(
        "wilds/iwildcam",
        "iWildCam",
        42791,
        182,
        metric="F1-macro_all",
        groups=Groups(fields=IWILDCAM, by=(), worst={}),
    ),
    _mirrored(
        "wilds/camelyon17",
        "Camelyon17",
        85054,
        2,
        groups=Groups(fields=("hospital", "slide", "y"), by=("slide",), worst={"slide": "acc_wg"}),
    ),
    _mirrored(
        "wilds/fmow",
        "FMoW",
        22108,
        62,
        metric="acc_worst_region",
        groups=Groups(
            fields=("region", "year", "y"),
            by=("year", "region"),
            worst={"year": "acc_worst_year", "region": "acc_worst_region"},
        ),
    ),
    _mirrored(
        "fairness/dollar_street",
        "Dollar Street",
        3503,
        58,
        metric="acc_top5_wg",
        groups=Groups(
            fields=("income_ds", "income_meta", "region"),
            by=("income_ds",),
            top=5,
            metric="acc_top5",
            worst={"income_ds": "acc_top5_wg"},
        ),
    ),
    _mirrored(
        "fairness/geode",
        "GeoDE",
        12488,
        40,
        metric="acc_wg",
        groups=Groups(fields=("region", "country"), by=("region",), worst={"region": "acc_wg"}),
    ),
)
_FACES = (
    _mirrored("fairness/fairface", "FairFace", 10954, None, kind="faces", metric=None),
    _mirrored("fairness/utkface", "UTKFace", 23703, None, kind="faces", metric=None),
)
DATACOMP = (*_CLASSIFICATION, *_RETRIEVAL, _WINOGAVIL, *_GROUPED, *_FACES)
"""DataComp's suite: 38 sets with a main metric, and two sets of faces without."""

SUGARCREPE = tuple(
    Task(
        key=f"comp/sugarcrepe_{form}_{part}",
        name=f"SugarCrepe {form.capitalize()}-{part}",
        kind="choice",
        main_metric="text_acc",
        source="https://github.com/RAIVNLab/sugar-crepe",
        size=size,
    )
    for form, part, size in (
        ("replace", "obj", 1652),
        ("replace", "att", 788),
        ("replace", "rel", 1406),
        ("swap", "obj", 245),
        ("swap", "att", 666),
        ("add", "obj", 2062),
        ("add", "att", 692),
    )
)
"""SugarCrepe (arXiv 2306.14610): a caption against one that is wrong in one word."""

LONG_CAPTIONS = (
    Task(
        key="longclip/sharegpt4v-1k",
        name="sharegpt4v-1k",
        kind="retrieval",
        main_metric="mean_recall@1",
        source="https://huggingface.co/datasets/Lin-Chen/ShareGPT4V",
        size=1000,
    ),
    Task(
        key="longclip/sharegpt4v-llava15k",
        name="sharegpt4v-llava15k",
        kind="retrieval",
        main_metric="mean_recall@1",
        source="https://huggingface.co/datasets/Lin-Chen/ShareGPT4V",
    ),
    Task(
        key="longclip/urban1k",
        name="urban1k",
        kind="retrieval",
        main_metric="mean_recall@1",
        source="https://huggingface.co/datasets/BeichenZhang/Urban1k",
        size=1000,
    ),
)
"""Retrieval by paragraphs (Long-CLIP, arXiv 2403.15378)."""

TASKS: Mapping[str, Task] = {task.key: task for task in (*DATACOMP, *SUGARCREPE, *LONG_CAPTIONS)}
AVERAGED = frozenset(task.key for task in DATACOMP if task.main_metric is not None)
"""The 38 keys of the published average."""
SHIFTS = ("imagenetv2", "imagenet_sketch", "imagenet-r", "imagenet-a", "imagenet-o", "objectnet")
"""ImageNet's shifted sets, whose mean the paper's Table 8 gives as IN-shift."""
SUITES: Mapping[str, tuple[str, ...]] = {
    "datacomp": tuple(task.key for task in DATACOMP),
    "imagenet-shifts": SHIFTS,
    "retrieval": tuple(task.key for task in _RETRIEVAL),
    "sugarcrepe": tuple(task.key for task in SUGARCREPE),
    "long-captions": tuple(task.key for task in LONG_CAPTIONS),
    "all": tuple(TASKS),
}
"""Names for several sets at once."""
_ALIASES = {
    "flickr30k": _RETRIEVAL[0].key,
    "retrieval/flickr30k": _RETRIEVAL[0].key,
    "coco": _RETRIEVAL[1].key,
    "mscoco": _RETRIEVAL[1].key,
}
_BY_NAME = {task.short: task.key for task in TASKS.values()} | _ALIASES


def find_tasks(name: str) -> tuple[Task, ...]:
    """The tasks of a key, its last part, or a suite's name; none for a name that the table does not have."""
    if name in SUITES:
        return tuple(TASKS[key] for key in SUITES[name])
    key = _BY_NAME.get(name, name)
    return (TASKS[key],) if key in TASKS else ()


def known_names() -> tuple[str, ...]:
    """All that `find_tasks` finds, suites first."""
    return (*SUITES, *_BY_NAME)


def nearest(name: str) -> Sequence[str]:
    """Names of the table that look like one it does not have."""
    return difflib.get_close_matches(name, known_names(), n=3)
