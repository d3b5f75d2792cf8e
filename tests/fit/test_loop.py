"""The loop keeps its promises, and a run that goes on from any saved state equals one that never stopped."""

from __future__ import annotations

import copy
import itertools
import math
import os
import re
import signal

import pytest
import torch
from torch import nn

from pocketclip.fit import (
    Hooks,
    Journal,
    LoopConfig,
    OptimConfig,
    StoppedError,
    WeightAverage,
    fit,
    read_journal,
)
from pocketclip.models.residual import Residual

torch.set_num_threads(1)
RATES = ("samples_per_s", "data_wait_share", "memory_gb")
OPTIM = OptimConfig(lr_peak=0.05, warmup_steps=2, clip_norm=0.5)


class Toy(nn.Module):
    """Convolution, BatchNorm, dropout and stochastic depth: all that has a state beyond its weights."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            Residual(nn.Conv2d(6, 6, 3, padding=1), channels=6, layer_scale_init=1.0, drop_path=0.5),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(6 * 16, 2),
        )

    def forward(self, x):
        return self.net(x)


def toy():
    torch.manual_seed(0)
    return Toy().to(memory_format=torch.channels_last)


def batches(first=0):
    for number in itertools.count(first):
        generator = torch.Generator().manual_seed(number)
        yield torch.randn(5, 3, 4, 4, generator=generator)


class Target:
    """What the toy is to learn: the mean of its input. Outputs are rows and a scalar, as a real model's are."""

    def __init__(self, change=lambda loss, batch: loss):
        self.change = change
        self.encoded = []

    def prepare(self, model):
        with torch.no_grad():
            model.net[-1].bias.clamp_(max=10.0)

    def split(self, batch, *, parts):
        return batch.chunk(parts)

    def encode(self, model, batch):
        self.encoded.append(len(batch))
        return model(batch), batch.mean(dim=(1, 2, 3)), next(model.parameters()).sum()

    def loss(self, outputs, batch):
        found, wanted, weight_sum = outputs
        value = (found - wanted[:, None]).square().mean() + 1e-3 * weight_sum.square()
        # Every row is compared with every other, as in a contrastive loss: parts alone would not do.
        value = value + 0.1 * (found @ found.T).square().mean()
        return {"loss": self.change(value, batch), "twice": 2 * value}


def run(
    folder, *, state=None, model=None, objective=None, optim=OPTIM, evaluate=None, keep_best=None, **loop
):
    """The kept weights, the model that was trained, the records without rates, and the saved states by step."""
    folder.mkdir(exist_ok=True)
    model = model or toy()
    states = {}
    first = state["step"] if state else 0
    kept = fit(
        model,
        objective=objective or Target(),
        batches=batches(first),
        num_samples=len,
        optim=optim,
        loop=LoopConfig(**{"num_steps": 9, "log_every": 1, "save_every": 2, **loop}),
        hooks=Hooks(
            save=lambda state: states.update({state["step"]: copy.deepcopy(state)}),
            evaluate=evaluate,
            keep_best=keep_best,
            record=Journal(folder / "metrics.jsonl", step=first).append,
            label="toy",
        ),
        state=state,
    )
    records = [
        {name: value for name, value in record.items() if name not in RATES}
        for record in read_journal(folder / "metrics.jsonl")
    ]
    return kept, model, records, states


def assert_equal(tree, other):
    if isinstance(tree, torch.Tensor):
        assert torch.equal(tree, other)
    elif isinstance(tree, dict):
        assert tree.keys() == other.keys()
        for name in tree:
            assert_equal(tree[name], other[name])
    elif isinstance(tree, list | tuple):
        assert len(tree) == len(other)
        for one, two in zip(tree, other, strict=True):
            assert_equal(one, two)
    else:
        assert tree == other


def weight_sum(model):
    assert not model.training
    return {"weight_sum": float(sum(value.double().sum() for value in model.state_dict().values()))}


@pytest.mark.parametrize("average_decay", [None, 0.7])
def test_going_on_from_any_state_is_the_undisturbed_run_bit_for_bit(tmp_path, average_decay):
    options = {"average_decay": average_decay, "evaluate": weight_sum, "evaluate_every": 3}
    kept, model, records, states = run(tmp_path / "whole", **options)
    assert list(states) == [2, 4, 6, 8]
    for step, state in states.items():
        # The weights at the start are others, and torch has drawn other numbers: only the state counts.
        torch.manual_seed(1234)
        other = Toy().to(memory_format=torch.channels_last)
        folder = tmp_path / f"from {step}"
        kept_again, again, records_again, later = run(
            folder, state=copy.deepcopy(state), model=other, **options
        )
        assert_equal(again.state_dict(), model.state_dict())
        assert_equal(kept_again, kept)
        assert records_again == [record for record in records if record["step"] > step]
        for number, saved in later.items():
            assert_equal(saved, states[number])


def test_a_run_killed_after_its_last_state_repeats_its_records(tmp_path):
    _, _, records, states = run(tmp_path)
    _, _, again, _ = run(tmp_path, state=states[4])
    assert again == records


def test_what_the_model_draws_follows_from_the_seed_the_step_and_nothing_else(tmp_path):
    _, model, _, _ = run(tmp_path / "one")
    torch.manual_seed(99)
    _, same, _, _ = run(tmp_path / "same", model=toy())
    assert_equal(same.state_dict(), model.state_dict())
    hooks = Hooks(save=lambda _: None, record=lambda _: None, label="toy")
    other = toy()
    fit(
        other,
        objective=Target(),
        batches=batches(),
        num_samples=len,
        optim=OPTIM,
        loop=LoopConfig(num_steps=9),
        hooks=hooks,
        seed=1,
    )
    assert not torch.equal(other.net[-1].weight, model.net[-1].weight)


def test_the_gradient_is_clipped_to_its_norm_and_recorded_before(tmp_path):
    optim = OptimConfig(clip_norm=1e-3, warmup_steps=0)
    _, model, records, _ = run(tmp_path, num_steps=1, optim=optim)
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    assert norm == pytest.approx(1e-3, rel=1e-3)
    assert records[0]["grad_norm"] > 1e-2


def test_a_gradient_below_the_norm_is_left_alone(tmp_path):
    _, model, records, _ = run(tmp_path, num_steps=1, optim=OptimConfig(clip_norm=math.inf))
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    assert norm == pytest.approx(records[0]["grad_norm"], rel=1e-5)


def test_the_average_is_kept_and_evaluated_and_the_model_trains_on(tmp_path):
    seen, decay = [], 0.8

    def evaluate(model):
        seen.append(copy.deepcopy(model.state_dict()))
        return {"score": 1.0}

    # One learning rate for all steps, so that the weights after each step are those of shorter runs.
    optim = OptimConfig(lr_peak=0.01, lr_floor=0.01, warmup_steps=0)
    kept, model, _, _ = run(
        tmp_path, average_decay=decay, evaluate=evaluate, evaluate_every=1, num_steps=4, optim=optim
    )
    average = WeightAverage(toy(), decay=decay)
    for step in range(1, 5):
        _, shorter, _, _ = run(tmp_path / "short", num_steps=step, optim=optim)
        average.update(shorter)
        assert_equal(seen[step - 1], average.tensors)
    assert_equal(kept, average.tensors)
    assert_equal(model.state_dict(), shorter.state_dict())


def test_without_an_average_the_last_weights_are_kept(tmp_path):
    kept, model, _, _ = run(tmp_path)
    assert_equal(kept, dict(model.state_dict()))


def test_records_states_and_evaluations_come_when_they_are_due(tmp_path):
    _, _, records, states = run(
        tmp_path, num_steps=10, log_every=4, save_every=5, evaluate=lambda _: {"score": 0.5}, evaluate_every=3
    )
    assert [record["step"] for record in records if "loss" in record] == [4, 8, 10]
    assert [record["step"] for record in records if "score" in record] == [3, 6, 9, 10]
    assert list(states) == [5]  # the end needs none: the caller keeps the result
    _, _, records, _ = run(tmp_path, num_steps=5, evaluate=lambda _: {"score": 0.5})
    assert [record["step"] for record in records if "score" in record] == [5]


def test_records_hold_the_terms_the_rate_and_the_speed(tmp_path):
    run(tmp_path, num_steps=3)
    records = read_journal(tmp_path / "metrics.jsonl")
    assert [record["lr"] for record in records] == pytest.approx([0.025, 0.05, 0.05])
    for record in records:
        assert record["twice"] == pytest.approx(2 * record["loss"])
        assert record["samples_per_s"] > 0
        assert 0 <= record["data_wait_share"] <= 1


def test_evaluation_changes_nothing_in_training(tmp_path):
    _, plain, _, _ = run(tmp_path)
    _, evaluated, _, _ = run(tmp_path, evaluate=weight_sum, evaluate_every=1)
    assert_equal(evaluated.state_dict(), plain.state_dict())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_that_is_not_finite_is_skipped_and_reported(tmp_path, bad, parts, capsys):
    calls = []

    def diverging(loss, _):
        calls.append(1)
        return loss * (bad if len(calls) == 4 else 1.0)

    weights = []

    def evaluate(model):
        weights.append(copy.deepcopy(dict(model.named_parameters())))
        return {}

    _, _, records, _ = run(
        tmp_path,
        objective=Target(diverging),
        evaluate=evaluate,
        evaluate_every=1,
        average_decay=0.9,
        parts=parts,
    )
    assert_equal(weights[3], weights[2])
    assert not torch.equal(weights[4]["net.0.weight"], weights[3]["net.0.weight"])
    assert [record["skipped_steps"] for record in records if "loss" in record] == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert re.search(r"step 4 is skipped: .*grad_norm nan", capsys.readouterr().err)


def test_a_run_that_stays_not_finite_ends_and_its_saved_state_stands(tmp_path):
    calls = []

    def diverging(loss, _):
        calls.append(1)
        return loss * (math.nan if len(calls) > 5 else 1.0)

    with pytest.raises(
        ValueError,
        match=r"training has diverged: .*loss nan.* at step 8, and no finite gradient in 3 .* lower lr_peak",
    ):
        run(tmp_path, objective=Target(diverging), skip_limit=2, save_every=4)
    # From a state before, the run without the fault goes on as if there had been none.
    _, undisturbed, _, states = run(tmp_path / "whole")
    _, again, _, _ = run(tmp_path, state=states[4])
    assert_equal(again.state_dict(), undisturbed.state_dict())


def test_no_state_is_saved_while_steps_are_skipped(tmp_path):
    """Weights that give nothing but nan are no state to go on from: it would take the last good one's place."""
    calls = []

    def failing(loss, _):
        calls.append(1)
        return loss * (math.nan if 3 <= len(calls) <= 6 else 1.0)

    _, _, _, states = run(tmp_path, objective=Target(failing))
    assert list(states) == [2, 8]


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path):
    model = toy()
    objective = Target(lambda loss, _: loss + (model.net[-1].bias * 0.0).sum().sqrt())
    before = copy.deepcopy(dict(model.named_parameters()))
    with pytest.raises(ValueError, match="grad_norm nan at step 1"):
        run(tmp_path, model=model, objective=objective, skip_limit=0)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def still_toy():
    """The toy without what depends on a part: BatchNorm's statistics and what it draws."""
    model = toy()
    model.net[1] = nn.Identity()
    model.net[2].drop_path = 0.0
    model.net[4].p = 0.0
    return model


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_a_batch_in_parts_has_the_whole_batchs_loss_and_gradient(tmp_path, parts):
    _, whole, records, _ = run(tmp_path / "whole", model=still_toy())
    objective = Target()
    _, divided, same, _ = run(tmp_path / "parts", model=still_toy(), objective=objective, parts=parts)
    for one, other in zip(records, same, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(divided.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert max(objective.encoded) == -(-5 // parts)  # never the whole batch at once


def test_parts_count_their_statistics_once_and_draw_the_same_both_times(tmp_path):
    _, model, _, _ = run(tmp_path, parts=2, num_steps=3)
    assert model.net[1].num_batches_tracked.item() == 3 * 2
    gradients = []
    for change in (lambda loss, _: loss, lambda loss, _: loss + 0.0):
        again = toy()
        run(
            tmp_path / "g",
            model=again,
            objective=Target(change),
            parts=2,
            num_steps=1,
            optim=OptimConfig(clip_norm=1e9),
        )
        gradients.append([parameter.grad.clone() for parameter in again.parameters()])
    assert_equal(*gradients)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_nearly_the_same(tmp_path, precision):
    optim = OptimConfig(lr_peak=1e-3, warmup_steps=0)
    _, _, exact, _ = run(tmp_path / "exact", model=still_toy(), optim=optim)
    _, model, records, states = run(tmp_path / "half", model=still_toy(), optim=optim, precision=precision)
    taken = [record for record in records if math.isfinite(record["grad_norm"])]
    assert len(taken) >= 5  # fp16 finds its loss scale first
    assert taken[0]["loss"] == pytest.approx(exact[taken[0]["step"] - 1]["loss"], rel=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    _, again, _, _ = run(
        tmp_path / "again",
        model=still_toy(),
        optim=optim,
        precision=precision,
        state=copy.deepcopy(states[4]),
    )
    assert_equal(again.state_dict(), model.state_dict())  # the loss scale belongs to the state


def test_the_best_weights_are_kept_and_patience_ends_the_run(tmp_path):
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    kept = []
    _, _, records, _ = run(
        tmp_path,
        evaluate=lambda _: {"score": next(scores)},
        evaluate_every=1,
        best="score",
        patience=2,
        keep_best=lambda model: kept.append(copy.deepcopy(model.state_dict())),
    )
    assert [record["score"] for record in records if "score" in record] == [0.1, 0.5, 0.4, 0.3]
    assert len(kept) == 2
    with pytest.raises(ValueError, match="no such metric: it has score"):
        run(tmp_path / "other", evaluate=lambda _: {"score": 0.0}, best="recall")


def test_a_run_that_is_asked_to_stop_saves_the_step_it_is_in_and_goes_on_from_it(tmp_path):
    calls = []

    def stopping(loss, _):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    states = {}
    model = toy()
    with pytest.raises(StoppedError, match="asked to stop after step 3 of 9; its state is saved"):
        fit(
            model,
            objective=Target(stopping),
            batches=batches(),
            num_samples=len,
            optim=OPTIM,
            loop=LoopConfig(num_steps=9, save_every=100),
            hooks=Hooks(
                save=lambda state: states.update({state["step"]: copy.deepcopy(state)}),
                record=lambda _: None,
                label="toy",
            ),
        )
    assert list(states) == [3]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    _, again, _, _ = run(tmp_path, state=states[3])
    _, undisturbed, _, _ = run(tmp_path / "whole")
    assert_equal(again.state_dict(), undisturbed.state_dict())


@pytest.mark.parametrize(
    "fields", [{"num_steps": 0}, {"log_every": 0}, {"save_every": 0}, {"evaluate_every": -1}]
)
def test_settings_that_make_no_sense_are_refused(fields):
    with pytest.raises(ValueError, match="must be at least 1"):
        LoopConfig(**{"num_steps": 1, **fields})
