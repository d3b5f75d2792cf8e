"""Which rows a teacher refuses, found with as few questions as it leaves."""

from __future__ import annotations

import numpy as np
import pytest
from tests.teachers.plain_teachers import PlainTeacher

from pocketclip.teachers import EncodeError
from pocketclip.teachers.encode import encoded


class Teacher(PlainTeacher):
    """Refuses texts that begin with "bad"; says which, or not."""

    def __init__(self, *, says):
        super().__init__("t", image_px=4)
        self.says = says

    def encode_text(self, texts):
        bad = {row: f"{text} is bad" for row, text in enumerate(texts) if text.startswith("bad")}
        if bad:
            self.batches.append(-len(texts))
            raise EncodeError("t", bad) if self.says else ValueError(next(iter(bad.values())))
        return super().encode_text(texts)


@pytest.mark.parametrize("says", [True, False])
def test_refused_rows_are_named_and_the_others_embedded_together(says):
    teacher = Teacher(says=says)
    texts = ["one", "bad two", "three", "four", "bad five"]
    rows_BD, reasons = encoded(teacher, teacher.encode_text, texts)
    assert reasons == {1: "teacher t: bad two is bad", 4: "teacher t: bad five is bad"}
    alone = Teacher(says=says)
    np.testing.assert_array_equal(rows_BD[[0, 2, 3]], alone.encode_text(["one", "three", "four"]))
    assert teacher.batches[-1] == 3
    assert len(teacher.batches) == (2 if says else 7)  # the whole, each alone, the rest


def test_all_may_be_refused():
    teacher = Teacher(says=True)
    _, reasons = encoded(teacher, teacher.encode_text, ["bad one", "bad two"])
    assert reasons.keys() == {0, 1}


def test_values_that_are_not_finite_are_refused_without_asking_again():
    class Hot(PlainTeacher):
        def encode_image(self, pixels_BHWC):
            rows_BD = super().encode_image(pixels_BHWC)
            rows_BD[1, 2] = np.inf
            return rows_BD

    teacher = Hot("hot", image_px=4)
    pixels_BHWC = np.full((3, 4, 4, 3), 100, np.uint8)
    rows_BD, reasons = encoded(teacher, teacher.encode_image, pixels_BHWC)
    assert reasons == {1: "teacher hot: gives an embedding that is not finite"}
    assert np.isfinite(rows_BD[[0, 2]]).all()
    assert teacher.batches == [3]


def test_a_batch_that_is_refused_as_a_whole_is_an_error():
    class Tired(PlainTeacher):
        def encode_text(self, texts):
            if len(texts) > 2:
                raise ValueError("too much")
            return super().encode_text(texts)

    teacher = Tired("t", image_px=4)
    with pytest.raises(ValueError, match="too much"):
        encoded(teacher, teacher.encode_text, ["a", "b", "c"])
