"""The loop keeps its promises, and a run that goes on from any saved state equals one that never stopped."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from pocketclip.fit import Hooks, Journal, LoopConfig, OptimConfig, WeightAverage, fit, read_journal
from pocketclip.models.residual import Residual

torch.set_num_threads(1)
RATES = ("samples_per_s", "data_wait_share")
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


def loss(model, batch):
    value = (model(batch) - batch.mean(dim=(1, 2, 3))[:, None]).square().mean()
    return {"loss": value, "twice": 2 * value}


def run(folder, *, state=None, model=None, loss=loss, optim=OPTIM, evaluate=None, **loop):
    """The kept model, the model that was trained, the records without rates, and the saved states by step."""
    folder.mkdir(exist_ok=True)
    model = model or toy()
    states = {}
    first = state["step"] if state else 0
    kept = fit(
        model,
        loss=loss,
        batches=batches(first),
        num_samples=len,
        optim=optim,
        loop=LoopConfig(**{"num_steps": 9, "log_every": 1, "save_every": 2, **loop}),
        hooks=Hooks(
            save=lambda state: states.update({state["step"]: copy.deepcopy(state)}),
            evaluate=evaluate,
            journal=Journal(folder / "metrics.jsonl", step=first),
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
        assert_equal(kept_again.state_dict(), kept.state_dict())
        assert records_again == [record for record in records if record["step"] > step]
        for number, saved in later.items():
            assert_equal(saved, states[number])


def test_a_run_killed_after_its_last_state_repeats_its_records(tmp_path):
    _, _, records, states = run(tmp_path)
    _, _, again, _ = run(tmp_path, state=states[4])
    assert again == records


def test_the_toy_draws_numbers_and_keeps_statistics(tmp_path):
    # Else the test of going on would prove nothing about them.
    _, model, _, states = run(tmp_path)
    assert not torch.equal(states[2]["rng"]["cpu"], states[4]["rng"]["cpu"])
    assert model.net[1].num_batches_tracked.item() == 9
    changed = copy.deepcopy(states[4])
    changed["rng"] = states[2]["rng"]
    _, other, _, _ = run(tmp_path / "other", state=changed)
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
    assert_equal(kept.state_dict(), average.tensors)
    assert_equal(model.state_dict(), shorter.state_dict())
    assert kept is not model


def test_without_an_average_the_model_itself_is_kept(tmp_path):
    kept, model, _, _ = run(tmp_path)
    assert kept is model


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
def test_a_loss_that_is_not_finite_is_a_sentence_and_the_saved_state_stands(tmp_path, bad):
    calls, states = [], {}

    def diverging(model, batch):
        calls.append(1)
        terms = loss(model, batch)
        return {"loss": terms["loss"] * (bad if len(calls) == 6 else 1.0)}

    model = toy()
    hooks = Hooks(
        save=lambda state: states.update({state["step"]: copy.deepcopy(state)}),
        evaluate=None,
        journal=Journal(tmp_path / "metrics.jsonl", step=0),
        label="toy",
    )
    config = LoopConfig(num_steps=9, save_every=2, log_every=1)
    with pytest.raises(
        ValueError, match=r"loss is (nan|inf) at step 6: training has diverged; .* lower lr_peak"
    ):
        fit(
            model,
            loss=diverging,
            batches=batches(),
            num_samples=len,
            optim=OPTIM,
            loop=config,
            hooks=hooks,
        )
    assert list(states) == [2, 4]
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert read_journal(tmp_path / "metrics.jsonl")[-1]["step"] == 5
    # From the state of step 4 the run without the fault goes on as if there had been none.
    _, again, _, _ = run(tmp_path, state=states[4])
    _, undisturbed, _, _ = run(tmp_path / "whole")
    assert_equal(again.state_dict(), undisturbed.state_dict())


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights(tmp_path):
    def infinite_slope(model, batch):
        return {"loss": loss(model, batch)["loss"] + (model.net[-1].bias * 0.0).sum().sqrt()}

    model = toy()
    before = copy.deepcopy(dict(model.named_parameters()))
    with pytest.raises(ValueError, match="grad_norm is nan at step 1"):
        run(tmp_path, model=model, loss=infinite_slope)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(
    "fields", [{"num_steps": 0}, {"log_every": 0}, {"save_every": 0}, {"evaluate_every": -1}]
)
def test_settings_that_make_no_sense_are_refused(fields):
    with pytest.raises(ValueError, match="must be at least 1"):
        LoopConfig(**{"num_steps": 1, **fields})
