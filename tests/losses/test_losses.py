"""The losses against their formulas written out, and what must follow from them."""

import math

import pytest
import torch
import torch.nn.functional as F

from pocketclip.losses import PairRows, TeacherRows, clip_loss, distill_loss, reinforced_loss, siglip_loss
from pocketclip.losses import softmax as softmax_losses

SCALE = torch.tensor(14.0, dtype=torch.float64)


def unit_rows(num: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(num, width, generator=generator, dtype=dtype), dim=1)


def pairs(num: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> PairRows:
    return PairRows(
        image_embed_BD=unit_rows(num, width, seed, dtype),
        text_embed_BD=unit_rows(num, width, seed + 1, dtype),
    )


def ensemble(num: int, dtype: torch.dtype = torch.float64) -> dict[str, TeacherRows]:
    widths, scales = (5, 9, 3), (70.0, 20.0, 5.0)
    return {
        f"teacher{i}": TeacherRows(pairs=pairs(num, widths[i], 10 * i + 10, dtype), logit_scale=scales[i])
        for i in range(3)
    }


def plain_loss(rows, *, logit_scale, teachers, distill_weight, average_logits=False):
    """The textbook's: whole matrices, autograd."""
    logits = logit_scale * rows.image_embed_BD @ rows.text_embed_BD.T
    label = torch.arange(len(logits))
    clip = (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2
    matrices = [t.logit_scale * t.pairs.image_embed_BD @ t.pairs.text_embed_BD.T for t in teachers.values()]
    if average_logits:
        matrices = [torch.stack(matrices).mean(0)]
    distill = logits.new_zeros(())
    for matrix in matrices:
        for student, teacher in ((logits, matrix), (logits.T, matrix.T)):
            target = F.softmax(teacher, 1)
            distill = (
                distill + (target * (F.log_softmax(teacher, 1) - F.log_softmax(student, 1))).sum(1).mean()
            )
    return (1 - distill_weight) * clip + distill_weight * distill / (2 * max(1, len(matrices)))


@pytest.fixture(params=[1, 3, 1000])
def chunk(request, monkeypatch) -> int:
    """Queries a chunk."""
    monkeypatch.setattr(softmax_losses, "_CHUNK_ELEMENTS", 7 * request.param)
    return request.param


def test_clip_loss_is_the_mean_of_both_cross_entropies(chunk):
    rows = pairs(6, 4, 0)
    image, text = rows.image_embed_BD, rows.text_embed_BD
    total = 0.0
    for i in range(6):
        forward = [float(SCALE * image[i] @ text[j]) for j in range(6)]
        backward = [float(SCALE * image[j] @ text[i]) for j in range(6)]
        total += math.log(sum(map(math.exp, forward))) - forward[i]
        total += math.log(sum(map(math.exp, backward))) - backward[i]
    assert float(clip_loss(rows, logit_scale=SCALE)) == pytest.approx(total / 12, rel=1e-12)


def test_distill_loss_is_the_papers_formula(chunk):
    rows, teachers = pairs(6, 4, 0), ensemble(6)
    total = 0.0
    for one in teachers.values():
        teacher = one.logit_scale * one.pairs.image_embed_BD @ one.pairs.text_embed_BD.T
        student = SCALE * rows.image_embed_BD @ rows.text_embed_BD.T
        for t, s in ((teacher, student), (teacher.T, student.T)):
            p, q = F.softmax(t, dim=1), F.softmax(s, dim=1)
            total += float((p * (p.log() - q.log())).sum())
    assert float(distill_loss(rows, logit_scale=SCALE, teachers=teachers)) == pytest.approx(
        total / (2 * 6 * 3), rel=1e-9
    )


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("average", [False, True])
def test_loss_and_gradients_are_those_of_the_plain_formula(chunk, weight, average):
    image, text = unit_rows(7, 4, 0).requires_grad_(), unit_rows(7, 4, 1).requires_grad_()
    scale = SCALE.clone().requires_grad_()
    rows, teachers = PairRows(image_embed_BD=image, text_embed_BD=text), ensemble(7)
    ask = {"logit_scale": scale, "teachers": teachers, "distill_weight": weight, "average_logits": average}
    ours, plain = reinforced_loss(rows, **ask).loss, plain_loss(rows, **ask)
    torch.testing.assert_close(ours, plain)
    for found, expected in zip(
        torch.autograd.grad(3.0 * ours, (image, text, scale)),
        torch.autograd.grad(3.0 * plain, (image, text, scale)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_terms_are_the_losses_alone():
    rows, teachers = pairs(6, 4, 0), ensemble(6)
    terms = reinforced_loss(rows, logit_scale=SCALE, teachers=teachers, distill_weight=0.25)
    torch.testing.assert_close(terms.clip, clip_loss(rows, logit_scale=SCALE))
    torch.testing.assert_close(terms.distill, distill_loss(rows, logit_scale=SCALE, teachers=teachers))
    torch.testing.assert_close(terms.loss, 0.75 * terms.clip + 0.25 * terms.distill)


def test_gradients_in_float32_at_a_larger_batch():
    """1e-5 of the largest entry, at sharp temperatures, over several chunks."""
    image = unit_rows(3000, 32, 0, torch.float32).requires_grad_()
    text = unit_rows(3000, 32, 1, torch.float32).requires_grad_()
    scale = torch.tensor(100.0, requires_grad=True)
    rows, teachers = PairRows(image_embed_BD=image, text_embed_BD=text), ensemble(3000, torch.float32)
    ask = {"logit_scale": scale, "teachers": teachers, "distill_weight": 0.7}
    ours = torch.autograd.grad(reinforced_loss(rows, **ask).loss, (image, text, scale))
    plain = torch.autograd.grad(plain_loss(rows, **ask), (image, text, scale))
    for found, expected in zip(ours, plain, strict=True):
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_nothing_of_the_size_of_the_square_is_held(monkeypatch):
    largest = 0
    product = torch.mm

    def watched(left, right, **options):
        nonlocal largest
        out = product(left, right, **options)
        largest = max(largest, out.numel())
        return out

    monkeypatch.setattr(torch, "mm", watched)
    monkeypatch.setattr(softmax_losses, "_CHUNK_ELEMENTS", 64 * 600)
    reinforced_loss(pairs(600, 8, 0), logit_scale=SCALE, teachers=ensemble(600), distill_weight=0.5)
    assert largest == 64 * 600


def test_processes_together_have_the_whole_batchs_loss_and_gradient():
    """Each with its own rows and everybody's: the mean of their losses, and so of their gradients."""
    image, text = unit_rows(8, 4, 0).requires_grad_(), unit_rows(8, 4, 1).requires_grad_()
    teachers = ensemble(8)

    def of_process(rows: PairRows, first: int) -> PairRows:
        own = slice(first, first + 4)
        return PairRows(
            image_embed_BD=rows.image_embed_BD[own],
            text_embed_BD=rows.text_embed_BD[own],
            all_image_embed_ND=rows.image_embed_BD,
            all_text_embed_ND=rows.text_embed_BD,
            first=first,
        )

    whole = PairRows(image_embed_BD=image, text_embed_BD=text)
    expected = reinforced_loss(whole, logit_scale=SCALE, teachers=teachers, distill_weight=0.6).loss
    parts = [
        reinforced_loss(
            of_process(whole, first),
            logit_scale=SCALE,
            teachers={
                name: TeacherRows(pairs=of_process(t.pairs, first), logit_scale=t.logit_scale)
                for name, t in teachers.items()
            },
            distill_weight=0.6,
        ).loss
        for first in (0, 4)
    ]
    together = (parts[0] + parts[1]) / 2
    torch.testing.assert_close(together, expected)
    for found, wanted in zip(
        torch.autograd.grad(together, (image, text)),
        torch.autograd.grad(expected, (image, text)),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_half_precision_rows_are_compared_in_float32():
    """Under autocast too: products of unit rows at a scale of 100 need more than eight bits."""
    image = unit_rows(64, 16, 0, torch.float32).bfloat16().requires_grad_()
    text = unit_rows(64, 16, 1, torch.float32).bfloat16()
    exact = clip_loss(
        PairRows(image_embed_BD=image.float(), text_embed_BD=text.float()), logit_scale=torch.tensor(100.0)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = clip_loss(PairRows(image_embed_BD=image, text_embed_BD=text), logit_scale=torch.tensor(100.0))
    torch.testing.assert_close(loss, exact)
    loss.backward()
    assert image.grad.dtype == torch.bfloat16


def test_distill_loss_vanishes_only_at_the_teacher():
    one = ensemble(6)["teacher1"]
    scale = torch.tensor(one.logit_scale, dtype=torch.float64)
    assert abs(float(distill_loss(one.pairs, logit_scale=scale, teachers={"one": one}))) < 1e-12
    elsewhere = PairRows(image_embed_BD=unit_rows(6, 9, 3), text_embed_BD=one.pairs.text_embed_BD)
    assert float(distill_loss(elsewhere, logit_scale=scale, teachers={"one": one})) > 0.1


def test_distill_gradient_is_that_of_a_cross_entropy_against_the_averaged_softmax():
    teachers = ensemble(6)
    text, image = unit_rows(6, 4, 1), unit_rows(6, 4, 0).requires_grad_()
    rows = PairRows(image_embed_BD=image, text_embed_BD=text)
    (gradient,) = torch.autograd.grad(distill_loss(rows, logit_scale=SCALE, teachers=teachers), image)
    logits = [t.logit_scale * t.pairs.image_embed_BD @ t.pairs.text_embed_BD.T for t in teachers.values()]
    student = SCALE * image @ text.T
    forward = torch.stack([F.softmax(t, dim=1) for t in logits]).mean(0)
    backward = torch.stack([F.softmax(t.T, dim=1) for t in logits]).mean(0)
    reference = (F.cross_entropy(student, forward) + F.cross_entropy(student.T, backward)) / 2
    (expected,) = torch.autograd.grad(reference, image)
    torch.testing.assert_close(gradient, expected)


def test_distillation_without_teachers_is_refused():
    with pytest.raises(ValueError, match="at least one teacher"):
        distill_loss(pairs(2, 3, 0), logit_scale=torch.tensor(1.0), teachers={})


def test_siglip_loss_is_the_papers_formula(chunk):
    image, text = unit_rows(7, 4, 0, torch.float32).requires_grad_(), unit_rows(7, 4, 1, torch.float32)
    scale, bias = torch.tensor(10.0), torch.tensor(-3.0, requires_grad=True)
    loss = siglip_loss(PairRows(image_embed_BD=image, text_embed_BD=text), logit_scale=scale, logit_bias=bias)
    sign = 2 * torch.eye(7) - 1
    expected = -F.logsigmoid(sign * (scale * image @ text.T + bias)).sum() / 7
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(
        torch.autograd.grad(loss, (image, bias)), torch.autograd.grad(expected, (image, bias)), strict=True
    ):
        torch.testing.assert_close(found, wanted)
