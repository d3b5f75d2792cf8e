from __future__ import annotations

import pytest
import torch
from tests.evaluate.conftest import COLOURS, pack_splits, sample

from pocketclip.checkpoint.store import create
from pocketclip.evaluate import EvaluateConfig, evaluate, make_evaluator


@pytest.fixture
def tiny():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return create("pocketclip_tiny")


@pytest.fixture
def evaluator(packed, tiny):
    return make_evaluator(packed, preprocess=tiny.config.preprocess, tokenize=tiny.tokenizer, batch_size=3)


def test_the_numbers_are_those_of_evaluate(packed, tiny, evaluator):
    scores = evaluator(tiny.model)
    report = evaluate({"m": tiny}, packed, config=EvaluateConfig(splits=("validation",), resamples=10))
    expected = report.result("m", "validation").scores
    assert set(scores) >= {"validation/mean_recall@1", "validation/mean_recall@5"}
    for name, value in scores.items():
        assert value == expected[name.removeprefix("validation/")].value


@pytest.mark.parametrize("training", [True, False])
def test_training_is_not_touched(tiny, evaluator, training):
    model = tiny.model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    evaluator(model)
    assert model.training is training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    loss = model.train()(torch.zeros(2, 3, 48, 48), torch.zeros(2, 26, dtype=torch.long)).image_embed_BD.sum()
    loss.backward()


def test_pictures_are_read_once(packed, tiny, evaluator):
    for shard in (packed / "validation").iterdir():
        shard.unlink()
    assert evaluator(tiny.model) == evaluator(tiny.model)


def test_the_mode_is_restored_after_a_failure(tiny, evaluator):
    model = tiny.model.train()
    with torch.no_grad():
        next(model.image.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="in training on split 'validation'"):
        evaluator(model)
    assert model.training


def test_limit_takes_pictures_from_all_over_the_split(tmp_path, tiny, monkeypatch):
    names = list(COLOURS)
    shards = [[sample(0, name)] for name in names]
    folder = pack_splits(tmp_path / "cards", {"validation": shards})
    seen = []
    from pocketclip.evaluate import feed as module

    monkeypatch.setattr(
        module, "decode", lambda data, *, name, real=module.decode: seen.append(name) or real(data, name=name)
    )
    make_evaluator(folder, preprocess=tiny.config.preprocess, tokenize=tiny.tokenizer, limit=3)
    # threads decode in no order in particular
    assert {name.split()[-1] for name in seen} == {"red-0.png", "blue-0.png", "black-0.png"}
