"""Every row of a reinforced shard against its teacher, one picture and one caption at a time."""

from __future__ import annotations

import numpy as np

from pocketclip.data.augment import apply, unpack
from pocketclip.data.augment_spec import AugmentSpec
from pocketclip.data.picture import decode
from pocketclip.data.reinforcement import BLOCK_NAME, Reinforcement
from pocketclip.data.shard import ShardReader

SPEC = AugmentSpec(scale=(0.3, 1.0), flip=0.5)


def check_rows(path, samples, *, teachers, spec=SPEC, atol=1e-6):
    """Every row of the shard against its teacher, one picture and one caption at a time."""
    by_key = {sample.key: sample for sample in samples}
    with ShardReader(path) as reader:
        block = Reinforcement(reader.block(BLOCK_NAME), name=path.name)
        assert len(block) == len(reader)
        for row in range(len(reader)):
            sample = reader[row]
            assert sample == by_key[sample.key]
            image = decode(sample.image, name=sample.key)
            views = [unpack(params_P) for params_P in block.augment_params_NAP[row]]
            texts = sample.texts()
            offsets = block.text_offsets
            assert offsets[row + 1] - offsets[row] == len(texts)
            for teacher in teachers:
                name = teacher.record.name
                alone = [
                    teacher.encode_image(
                        np.asarray(apply(image, view, size=teacher.image_px, spec=spec))[None]
                    )
                    for view in views
                ]
                rows = block.image_rows(name, np.full(len(views), row), np.arange(len(views)))
                np.testing.assert_allclose(rows, np.concatenate(alone), atol=atol)
                alone = [teacher.encode_text([text]) for text in texts]
                rows = block.text_rows(name, np.full(len(texts), row), np.arange(len(texts)))
                np.testing.assert_allclose(rows, np.concatenate(alone), atol=atol)
        del block, rows
        return list(reader.keys)
