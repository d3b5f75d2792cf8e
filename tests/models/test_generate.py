"""Writing captions: step by step the same as all at once, each caption by itself, and the rules are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pocketclip.models import CAPTIONERS, Captioner, network
from pocketclip.models.generate import NotFiniteError, Style, Writer
from pocketclip.models.generate_linear import Linears
from pocketclip.models.generate_steps import CachedSteps
from pocketclip.models.vit import ViTConfig

ROW = CAPTIONERS["pocketclip_tiny_captioner"]
VIT = ViTConfig(image_px=48, patch_px=16, width=48, heads=3, layers=2, pre_norm=True)
TOWERS = {"fastvit": ROW.model, "vit": replace(ROW.model, image=VIT)}
START, END = 8190, 8191
LENGTH = 12


@pytest.fixture(params=TOWERS)
def model(request, scramble) -> Captioner:
    torch.manual_seed(1)
    made = network(TOWERS[request.param]).eval()
    return sharpened(scramble(made) if request.param == "vit" else made)


@pytest.fixture
def seeing(scramble) -> Captioner:
    """One whose likeliest captions differ from picture to picture."""
    torch.manual_seed(1)
    return sharpened(scramble(network(TOWERS["vit"])))


@pytest.fixture(scope="module")
def writer() -> Writer:
    torch.manual_seed(1)
    return Writer(sharpened(network(ROW.model).eval()))


@torch.no_grad()
def sharpened(model: Captioner) -> Captioner:
    """Larger weights where the picture comes in, so that it shows in what is written."""
    for block in model.decoder.looking:
        block.attention.out.weight.mul_(20)
    return model


def pictures(num: int) -> torch.Tensor:
    """Of different colours and textures."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(num, 3, 1, 1, generator=rng) * 3 + torch.randn(num, 3, 48, 48, generator=rng)


def some_tokens(num: int) -> torch.Tensor:
    tokens_NL = torch.randint(1, START, (num, LENGTH), generator=torch.Generator().manual_seed(0))
    tokens_NL[:, 0] = START
    return tokens_NL


@torch.inference_mode()
def test_logits_step_by_step_are_those_of_the_whole_model(model):
    image, tokens = pictures(3), some_tokens(6)
    whole = model.caption_logits(image.repeat_interleave(2, dim=0), tokens)
    steps = CachedSteps(model, image, rows_each=2, length=LENGTH)
    for place in range(LENGTH):
        torch.testing.assert_close(steps.step(tokens[:, place]), whole[:, place], atol=1e-4, rtol=1e-4)
    assert whole.std() > 0.5
    others = model.caption_logits(image.roll(1, 0).repeat_interleave(2, dim=0), tokens)
    assert (others - whole).abs().amax(dim=(1, 2)).min() > 0.1  # the pictures are seen


@torch.inference_mode()
def test_rows_may_be_left_out_repeated_and_reordered(model):
    image, tokens = pictures(3), some_tokens(6)
    whole = model.caption_logits(image.repeat_interleave(2, dim=0), tokens)
    steps = CachedSteps(model, image, rows_each=2, length=LENGTH)
    moves = {2: [1, 0, 2, 2, 4, 5], 4: [0, 2, 3, 5], 7: [1, 2, 3], 9: [1, 1]}
    rows = torch.arange(6)
    written = tokens.clone()
    for place in range(LENGTH):
        if place in moves:
            kept = torch.tensor(moves[place])
            steps.keep(kept)
            rows, written = rows[kept], written[kept]
        found = steps.step(written[:, place])
        torch.testing.assert_close(found, whole[rows, place], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_prepared_linear_layers_compute_the_same():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(96, 200), torch.randn(5, 96)
    linears = Linears(rows=8)
    for rows in (5, 1, 3):
        torch.testing.assert_close(linears(layer, x[:rows]), layer(x[:rows]), atol=1e-5, rtol=1e-5)
    half = torch.nn.Linear(96, 200).bfloat16()
    assert torch.equal(linears(half, x.bfloat16()), half(x.bfloat16()))


def plain_greedy(model, image_CHW, *, length):
    """The likeliest caption, by the whole model for every token."""
    tokens = [START]
    with torch.inference_mode():
        while len(tokens) <= length and tokens[-1] != END:
            logits = model.caption_logits(image_CHW[None], torch.tensor([tokens]))[0, -1]
            logits[[0, START]] = -torch.inf
            tokens.append(int(logits.argmax()))
    return [token for token in tokens[1:] if token != END]


def test_greedy_captions_are_the_argmax_of_the_whole_model(seeing):
    found = Writer(seeing).write(pictures(4), style=Style(temperature=0.0, max_length=LENGTH))
    expected = [[plain_greedy(seeing, image, length=LENGTH)] for image in pictures(4)]
    assert found == expected
    assert len({str(one) for one in expected}) == 4


def test_what_a_search_finds_is_likelier_than_the_likeliest_tokens(seeing):
    writer = Writer(seeing)
    greedy = writer.write(pictures(3), style=Style(temperature=0.0, max_length=6))
    best = writer.write(pictures(3), style=Style(temperature=0.0, max_length=6, beams=5, length_penalty=0.0))

    def likelihood(image, tokens):
        with torch.inference_mode():
            logits = seeing.caption_logits(image[None], torch.tensor([[START, *tokens]]))[0]
            logits[:, [0, START]] = -torch.inf
        ends = [*tokens, END][:6]
        return logits.log_softmax(-1)[range(len(ends)), ends].sum()

    gained = [
        likelihood(image, one[0]) - likelihood(image, other[0])
        for image, one, other in zip(pictures(3), best, greedy, strict=True)
    ]
    assert sum(gained) > 0.1


@pytest.mark.parametrize(
    "fields",
    [
        {"top_p": 1.0},
        {"top_p": 0.5},
        {"top_k": 5, "temperature": 2.0},
        {"repetition_penalty": 1.5, "min_length": 3},
    ],
)
def test_a_caption_depends_on_its_picture_seed_and_number_alone(writer, fields):
    style = Style(num_captions=3, max_length=8, **fields)
    seeds = [11, 2**64 - 1, 0, 5]
    together = writer.write(pictures(4), style=style, seeds=seeds)
    order = [2, 0, 3, 1]
    shuffled = writer.write(pictures(4)[order], style=style, seeds=[seeds[i] for i in order])
    assert shuffled == [together[i] for i in order]
    alone = writer.write(pictures(4)[1:2], style=replace(style, num_captions=5), seeds=seeds[1:2])
    assert alone[0][:3] == together[1]
    assert len({str(one) for captions in together for one in captions}) == 12
    assert writer.write(pictures(4), style=style, seeds=[12, *seeds[1:]])[0] != together[0]


@torch.no_grad()
def ending(writer: Writer, *, bias: float) -> Writer:
    """The same with an end of text that is as much likelier."""
    model = network(writer._model.config).eval()
    model.load_state_dict(writer._model.state_dict())
    model.decoder.norm.bias.add_(model.decoder.head.weight[END] * bias)
    return Writer(model)


def test_captions_end_at_different_places_and_those_that_go_on_are_the_same(writer):
    style = Style(num_captions=4, max_length=20, top_p=1.0)
    early = ending(writer, bias=6.0)
    found = early.write(pictures(4), style=style, seeds=range(4))
    lengths = [len(one) for captions in found for one in captions]
    assert min(lengths) < 8
    assert max(lengths) > 8
    assert all(END not in one and START not in one and 0 not in one for captions in found for one in captions)
    for picture in range(4):  # where others end, and rows are taken out, nothing changes
        alone = early.write(pictures(4)[picture : picture + 1], style=style, seeds=[picture])
        assert alone[0] == found[picture]


def test_captions_have_their_least_length(writer):
    early = ending(writer, bias=200.0)
    assert early.write(pictures(2), style=Style(max_length=9), seeds=[1, 2]) == [[[]], [[]]]
    for style in (
        Style(max_length=9, min_length=4, num_captions=3),
        Style(max_length=9, min_length=4, num_captions=3, beams=4, temperature=0.0),
    ):
        found = early.write(pictures(2), style=style, seeds=[1, 2])
        assert {len(one) for captions in found for one in captions} == {4}


@torch.no_grad()
def test_a_model_that_loops_is_kept_from_it(writer):
    looping = ending(writer, bias=0.0)
    looping._model.decoder.norm.bias.add_(looping._model.decoder.head.weight[77] * 200)
    style = Style(temperature=0.0, max_length=10)
    assert looping.write(pictures(1), style=style) == [[[77] * 10]]
    for size in (1, 2, 3):
        for beams in (1, 4):
            held = replace(style, no_repeat_ngram=size, beams=beams)
            tokens = looping.write(pictures(1), style=held)[0][0]
            rows = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
            assert len(set(rows)) == len(rows)


def test_half_precision_writes_too(writer):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = writer.write(pictures(2), style=Style(num_captions=2, max_length=5), seeds=[1, 2])
    assert [len(captions) for captions in found] == [2, 2]


def test_no_pictures_no_captions(writer):
    assert writer.write(pictures(0), style=Style(max_length=5), seeds=[]) == []


def test_a_diverged_model_names_the_picture(writer):
    broken = pictures(3)
    broken[1] = torch.nan
    with pytest.raises(NotFiniteError, match="picture 1"):
        writer.write(broken, style=Style(max_length=3), seeds=[1, 2, 3])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_captions": 0}, "num_captions"),
        ({"min_length": 31}, "min_length must be 0 to max_length 30"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.1}, "top_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram"),
        ({"beams": 4, "beam_groups": 3, "temperature": 0.0}, "multiple of beam_groups 3"),
        ({"beams": 4}, "draws nothing: give temperature 0"),
        ({"temperature": 0.0, "num_captions": 2}, "the same caption 2 times"),
    ],
)
def test_styles_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Style(**fields)


def test_what_the_model_cannot_write_is_told(writer):
    with pytest.raises(ValueError, match="max_length 27 is beyond the model's 26 tokens"):
        writer.write(pictures(1), style=Style(max_length=27), seeds=[1])
    with pytest.raises(ValueError, match="2 pictures need as many seeds, got 1"):
        writer.write(pictures(2), style=Style(max_length=4), seeds=[1])
