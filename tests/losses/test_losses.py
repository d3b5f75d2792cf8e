"""The losses against their formulas written out, and what must follow from them."""

import math

import pytest
import torch
import torch.nn.functional as F

from pocketclip.losses import TeacherRows, clip_loss, distill_loss


def unit_rows(num: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(num, width, generator=generator, dtype=torch.float64), dim=1)


def ensemble(num: int) -> dict[str, TeacherRows]:
    widths, scales = (5, 9, 3), (70.0, 20.0, 5.0)
    return {
        f"teacher{i}": TeacherRows(
            image_embed_BD=unit_rows(num, widths[i], 10 + i),
            text_embed_BD=unit_rows(num, widths[i], 20 + i),
            logit_scale=scales[i],
        )
        for i in range(3)
    }


def test_clip_loss_is_the_mean_of_both_cross_entropies():
    image, text, scale = unit_rows(6, 4, 0), unit_rows(6, 4, 1), torch.tensor(14.0, dtype=torch.float64)
    total = 0.0
    for i in range(6):
        forward = [float(scale * image[i] @ text[j]) for j in range(6)]
        backward = [float(scale * image[j] @ text[i]) for j in range(6)]
        total += math.log(sum(map(math.exp, forward))) - forward[i]
        total += math.log(sum(map(math.exp, backward))) - backward[i]
    assert float(clip_loss(image, text, logit_scale=scale)) == pytest.approx(total / 12, rel=1e-12)


def test_distill_loss_is_the_papers_formula():
    image, text, scale = unit_rows(6, 4, 0), unit_rows(6, 4, 1), torch.tensor(14.0, dtype=torch.float64)
    teachers = ensemble(6)
    total = 0.0
    for rows in teachers.values():
        teacher = rows.logit_scale * rows.image_embed_BD @ rows.text_embed_BD.T
        student = scale * image @ text.T
        for t, s in ((teacher, student), (teacher.T, student.T)):
            p, q = F.softmax(t, dim=1), F.softmax(s, dim=1)
            total += float((p * (p.log() - q.log())).sum())
    expected = total / (2 * 6 * 3)
    assert float(distill_loss(image, text, logit_scale=scale, teachers=teachers)) == pytest.approx(
        expected, rel=1e-9
    )


def test_distill_loss_vanishes_only_at_the_teacher():
    rows = ensemble(6)["teacher1"]
    scale = torch.tensor(rows.logit_scale, dtype=torch.float64)
    at_teacher = distill_loss(
        rows.image_embed_BD, rows.text_embed_BD, logit_scale=scale, teachers={"one": rows}
    )
    assert abs(float(at_teacher)) < 1e-12
    elsewhere = distill_loss(
        unit_rows(6, 9, 3), rows.text_embed_BD, logit_scale=scale, teachers={"one": rows}
    )
    assert float(elsewhere) > 0.1


def test_distill_gradient_is_that_of_a_cross_entropy_against_the_averaged_softmax():
    teachers = ensemble(6)
    text, scale = unit_rows(6, 4, 1), torch.tensor(14.0, dtype=torch.float64)
    image = unit_rows(6, 4, 0).requires_grad_()
    (gradient,) = torch.autograd.grad(distill_loss(image, text, logit_scale=scale, teachers=teachers), image)
    logits = [rows.logit_scale * rows.image_embed_BD @ rows.text_embed_BD.T for rows in teachers.values()]
    student = scale * image @ text.T
    forward = torch.stack([F.softmax(t, dim=1) for t in logits]).mean(0)
    backward = torch.stack([F.softmax(t.T, dim=1) for t in logits]).mean(0)
    reference = (F.cross_entropy(student, forward) + F.cross_entropy(student.T, backward)) / 2
    (expected,) = torch.autograd.grad(reference, image)
    torch.testing.assert_close(gradient, expected)


def test_distillation_without_teachers_is_refused():
    rows, scale = unit_rows(2, 3, 0), torch.tensor(1.0)
    with pytest.raises(ValueError, match="at least one teacher"):
        distill_loss(rows, rows, logit_scale=scale, teachers={})
