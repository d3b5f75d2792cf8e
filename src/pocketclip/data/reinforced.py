"""A reinforced shard as a whole: samples beside all that was stored of them, many at a time."""

# Shape suffixes: N samples, A views of each, T captions, D dimensions.

from __future__ import annotations

import numpy as np

from pocketclip.data.reinforcement import BLOCK_NAME, Embeddings, Reinforcement
from pocketclip.data.shard import ShardReader


def reinforcement_of(shard: ShardReader) -> Reinforcement:
    """The reinforcement of an open shard; it stays readable when the shard is closed.

    Raises:
        ValueError: there is none, it is damaged, or of another number of samples.
    """
    found = shard.block(BLOCK_NAME)
    if found is None:
        raise ValueError(f"{shard.path} is not reinforced: run `pocketclip reinforce` first")
    block = Reinforcement(found, name=str(shard.path), rows=shard.rows)
    if len(block) != len(shard):
        raise ValueError(
            f"{shard.path} has {len(shard)} samples but embeddings of {len(block)}: delete it and run "
            f"`pocketclip reinforce` again"
        )
    return block


def embeddings_of(block: Reinforcement, samples_N: np.ndarray) -> list[Embeddings]:
    """All rows of some samples, of each teacher in the header's order.

    Args:
        block: of a shard.
        samples_N: numbers of samples; captions follow one another in this order.
    """
    counts_N = block.text_counts()[samples_N]
    views_N = np.tile(np.arange(block.num_views), len(samples_N))
    owner_V, owner_T = np.repeat(samples_N, block.num_views), np.repeat(samples_N, counts_N)
    text_T = np.concatenate([np.arange(count) for count in counts_N]) if len(samples_N) else owner_T
    embeddings = []
    for teacher in block.header.teachers:
        image_VD = block.image_rows(teacher.name, owner_V, views_N)
        embeddings.append(
            Embeddings(
                image_NAD=image_VD.reshape(len(samples_N), block.num_views, -1),
                text_TD=block.text_rows(teacher.name, owner_T, text_T),
            )
        )
    return embeddings
