"""What decides the ids that another library's tokenizer gives, as a digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def vocabulary_digest(tokenizer: Any) -> str:  # noqa: ANN401
    """sha256 of the vocabulary and the rules of a tokenizer of open_clip or transformers, wherever it was read from.

    What a call sets for itself (padding, truncation) does not count.
    """
    inner = getattr(tokenizer, "tokenizer", tokenizer)  # open_clip wraps those of transformers
    backend = getattr(inner, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules = {name: value for name, value in rules.items() if name not in ("padding", "truncation")}
    elif hasattr(inner, "get_vocab"):
        rules = inner.get_vocab()
    else:
        rules = inner.encoder  # open_clip's own: byte pairs in the order of their merges
    settings = {
        "class": type(inner).__name__,
        "clean": getattr(getattr(tokenizer, "clean_fn", None), "__name__", None),
        "mode": getattr(tokenizer, "tokenizer_mode", None),
        "padding_side": getattr(inner, "padding_side", None),
        "pad": getattr(inner, "pad_token_id", None),
        "rules": rules,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
