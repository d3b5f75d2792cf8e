"""The loop: what was saved goes on bit for bit; a loss that is not finite stops it with a sentence."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

from pocketclip.fit import (
    Hooks,
    Journal,
    LoopConfig,
    OptimConfig,
    WeightAverage,
    cosine,
    fit,
    make_adamw,
    read_journal,
)

OPTIM = OptimConfig(lr_peak=1e-2, warmup_steps=3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.GELU(), nn.Linear(8, 3))


def batches(start: int = 0):
    for number in itertools.count(start):
        rng = np.random.default_rng(number)
        yield torch.from_numpy(rng.standard_normal((16, 6)).astype(np.float32))


def loss(model, batch):
    value = (model(batch) - batch[:, :3]).square().mean()
    return {"loss": value, "scaled": 2 * value}


def run(folder, *, steps=12, state=None, saved=None, average=0.9, loss=loss):
    folder.mkdir(exist_ok=True)
    states = saved if saved is not None else {}
    start = state["step"] if state else 0
    hooks = Hooks(
        save=lambda s: states.__setitem__(s["step"], copy.deepcopy(s)),
        evaluate=lambda model: {"score": float(model(torch.ones(2, 6)).sum().detach())},
        journal=Journal(folder / "metrics.jsonl", step=start),
        label="test",
    )
    loop = LoopConfig(num_steps=steps, average_decay=average, log_every=1, evaluate_every=4, save_every=1)
    kept = fit(
        network(),
        loss=loss,
        batches=batches(start),
        num_samples=len,
        optim=OPTIM,
        loop=loop,
        hooks=hooks,
        state=state,
    )
    return kept, read_journal(folder / "metrics.jsonl")


def losses(records):
    return [(r["step"], r["loss"], r["grad_norm"]) for r in records if "loss" in r]


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_run_goes_on_from_any_saved_state_bit_for_bit(tmp_path, average):
    saved: dict = {}
    torch.manual_seed(5)
    whole, records = run(tmp_path / "whole", saved=saved, average=average)
    assert sorted(saved) == list(range(1, 12))
    for step in (1, 4, 7, 11):
        torch.manual_seed(99)  # whatever state the new process has
        again, resumed = run(tmp_path / f"from{step}", state=copy.deepcopy(saved[step]), average=average)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), name
        assert losses(resumed) == losses(records)[step:]


def test_loss_falls_and_evaluations_are_recorded(tmp_path):
    _, records = run(tmp_path / "run", steps=40)
    values = [value for _, value, _ in losses(records)]
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])
    assert [r["step"] for r in records if "score" in r] == list(range(4, 41, 4))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_saved(tmp_path):
    saved: dict = {}
    count = itertools.count(1)

    def bad(model, batch):
        terms = loss(model, batch)
        return {name: value * (float("nan") if next(count) > 10 else 1.0) for name, value in terms.items()}

    with pytest.raises(ValueError, match=r"is nan at step 6.*lower lr_peak"):
        run(tmp_path / "run", saved=saved, loss=bad)
    assert max(saved) == 5
    assert all(torch.isfinite(value).all() for value in saved[5]["model"].values())


def test_the_schedule_warms_up_and_ends_at_its_floor():
    rates = [cosine(s, num_steps=100, warmup_steps=10, lr_peak=1.0, lr_floor=0.1) for s in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (s + 1) for s in range(10)])
    assert rates[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)


def test_vectors_are_not_decayed():
    optimizer = make_adamw(network(), config=OptimConfig(weight_decay=0.2))
    by_decay = {group["weight_decay"]: {p.ndim for p in group["params"]} for group in optimizer.param_groups}
    assert by_decay == {0.2: {2}, 0.0: {1}}


def test_the_average_is_the_exponential_one():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = WeightAverage(model, decay=0.75)
    nn.init.constant_(model.weight, 5.0)
    average.update(model)
    average.update(model)
    assert float(average.tensors["weight"]) == pytest.approx(0.75**2 * 1 + (1 - 0.75**2) * 5)
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(model, decay=1.0)


def test_the_journal_forgets_steps_that_will_be_done_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "".join(json.dumps({"step": s, "loss": 1.0}) + "\n" for s in range(1, 6)) + '{"step": 6, "lo'
    )
    Journal(path, step=3).append({"step": 4, "loss": 2.0})
    assert [(r["step"], r["loss"]) for r in read_journal(path)] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0)]


def test_a_damaged_journal_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 2"):
        read_journal(path)
