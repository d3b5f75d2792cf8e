"""A run as a record: what makes no sense together is refused, and a batch is shared out."""

from __future__ import annotations

import json

import pytest

from pocketclip.checkpoint import structure, unstructure
from pocketclip.data.stream import StreamConfig
from pocketclip.fit import LoopConfig
from pocketclip.train import ObjectiveConfig, OnlineSpec, TrainConfig


def config(**fields):
    plain = {"name": "test", "variant": "pocketclip_tiny", "stream": StreamConfig(batch_size=4)}
    return TrainConfig(**{**plain, "loop": LoopConfig(num_steps=1), **fields})


TEACHER = OnlineSpec(name="a", source="a.safetensors")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": None}, "set variant, or start"),
        ({"freeze": "image"}, "freeze image would keep random weights: set start"),
        ({"objective": ObjectiveConfig(distill_weight=0.5)}, r"set stream\.replay, or name teachers"),
        ({"online": (TEACHER,)}, r"would teach nothing: set objective\.distill_weight"),
        (
            {"online": (TEACHER, TEACHER), "objective": ObjectiveConfig(distill_weight=0.5)},
            "teachers need different names",
        ),
        ({"objective": ObjectiveConfig(synthetic_weight=0.5)}, r"set stream\.synthetic"),
        ({"global_batch": 0}, "global_batch must be at least 1"),
        ({"global_batch": 8, "loop": LoopConfig(num_steps=1, parts=2)}, r"leave that 1"),
    ],
)
def test_settings_that_do_not_go_together_are_told(fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)


@pytest.mark.parametrize(
    ("global_batch", "num_processes", "own", "parts"),
    [(8, 1, 8, 2), (8, 2, 4, 1), (8, 8, 1, 1), (18, 2, 9, 3), (None, 2, 4, 1)],
)
def test_a_batch_is_shared_out_in_parts_that_fit(global_batch, num_processes, own, parts):
    whole = config(global_batch=global_batch)
    each = whole.shared_out(num_processes)
    assert (each.stream.batch_size, each.loop.parts) == (own, parts)
    assert each.samples_per_step(num_processes) == whole.samples_per_step(num_processes)
    assert -(-each.stream.batch_size // each.loop.parts) <= whole.stream.batch_size


def test_a_batch_that_cannot_be_shared_out_is_told():
    with pytest.raises(ValueError, match="global_batch 8 cannot be shared out among 3 processes"):
        config(global_batch=8).shared_out(3)


def test_it_is_read_back_as_it_was_written():
    run = config(
        start="runs/a", freeze="text", online=(TEACHER,), objective=ObjectiveConfig(distill_weight=1.0)
    )
    assert structure(json.loads(json.dumps(unstructure(run))), TrainConfig) == run
