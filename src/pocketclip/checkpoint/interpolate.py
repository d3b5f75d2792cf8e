"""Between two checkpoints: weights on the straight line from one to the other (WiSE-FT, arXiv 2109.01903).

A model that was fine-tuned gains on its task and forgets elsewhere; models on the way often keep most of both.
"""

from __future__ import annotations

import torch

from pocketclip.checkpoint.loaded import Loaded, assemble


def interpolate(start: Loaded, tuned: Loaded, *, share: float) -> Loaded:
    """A new model with weights (1 - share) * start + share * tuned, on the CPU; its config is `tuned`'s.

    Running statistics of BatchNorms and the logarithm of the logit scale are interpolated as weights are; counters
    are `tuned`'s. At 0 and 1 the weights are those of one model, bit for bit.

    Args:
        start: before fine-tuning.
        tuned: after it.
        share: of `tuned`, in [0, 1].

    Raises:
        ValueError: a share outside [0, 1], or models of different towers, pictures or texts.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must be in [0, 1], got {share}")
    one, other = start.config, tuned.config
    if (one.model, one.preprocess, one.tokenizer) != (other.model, other.preprocess, other.tokenizer):
        raise ValueError(
            "there is nothing between these checkpoints: their towers, their pictures or their texts are not the same "
            f"({one.model} and {other.model})"
        )
    before, after = start.model.state_dict(), tuned.model.state_dict()
    state = {
        name: torch.lerp(before[name].cpu(), value.cpu(), share)
        if value.is_floating_point()
        else value.cpu().clone()
        for name, value in after.items()
    }
    return assemble(state, config=other, tokenizer=tuned.tokenizer)
