"""A reinforced shard as a whole: samples beside all that was stored of them, many at a time."""

# Shape suffixes: N samples, A views of each, T captions, D dimensions.

from __future__ import annotations

import numpy as np

from pocketclip.data.reinforcement import BLOCK_NAME, Embeddings, Reinforcement
from pocketclip.data.reinforcement_header import read_header
from pocketclip.data.shard import ShardReader
from pocketclip.data.tables import Table, TableWriter, read_metadata, read_tables


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


def taken_block(block: memoryview, samples_K: np.ndarray) -> bytes:
    """The reinforcement of some samples of a shard as a block of its own: the stored bits, moved, not made again.

    What the header says of the whole shard (errors of the codec, what was dropped) stays as it was.

    Args:
        block: the shard's.
        samples_K: numbers of samples, in the order in which they are to come.
    """
    tables, texts = read_tables(block), read_metadata(block)
    by_row = ("values",) if read_header(texts).codec == "q4" else ("values", "scale")
    num_views = tables["augment_params"].array.shape[1]
    offsets = tables["text_offsets"].array
    counts_K = np.diff(offsets)[samples_K]
    first_T = np.repeat(offsets[:-1][samples_K] - (np.cumsum(counts_K) - counts_K), counts_K)
    text_T = first_T + np.arange(len(first_T))
    view_V = (samples_K[:, None] * num_views + np.arange(num_views)).ravel()
    with TableWriter() as writer:
        for name, table in tables.items():
            array = table.array
            if name == "augment_params":
                array = array[samples_K]
            elif name == "text_offsets":
                array = np.concatenate([[0], np.cumsum(counts_K)]).astype(np.int64)
            elif name.endswith(by_row) and name.startswith(("image/", "text/")):
                array = array[view_V if name.startswith("image/") else text_T]
            writer.put(name, Table(kind=table.kind, array=np.ascontiguousarray(array)))
        return b"".join(writer.finish(texts).chunks)
