"""What sentence-transformers loads: `SentenceTransformer(FOLDER, trust_remote_code=True)`.

Shapes: B texts or pictures, L tokens, S picture side, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sentence_transformers.base.modules.input_module import InputModule
from torch import Tensor

from pocketclip.checkpoint import Loaded, load, save
from pocketclip.export.hosts.sentence_folder import CHECKPOINT_FILE


class PocketClip(InputModule):
    """A checkpoint as the one module of a SentenceTransformer; it embeds and trains.

    Args:
        loaded: the checkpoint.
    """

    def __init__(self, loaded: Loaded) -> None:
        super().__init__()
        self.model = loaded.model
        self.max_seq_length = loaded.config.tokenizer.context_length
        self._loaded = loaded

    @property
    def modalities(self) -> list[Any]:
        """Texts and PIL pictures."""
        return ["text", "image"]

    def get_embedding_dimension(self) -> int:
        """D."""
        return self._loaded.config.model.embed_dim

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **settings: object
    ) -> dict[str, Tensor]:
        """Texts to tokens [B, L], or pictures to pixels [B, 3, S, S]; the host gives one kind at a time.

        Args:
            inputs: texts or PIL pictures.
            prompt: put before texts.
            settings: of the host; there are none for this module.

        Raises:
            ValueError: something else than texts or pictures.
        """
        del settings
        if all(isinstance(one, str) for one in inputs):
            return {"tokens": self._loaded.tokenize([(prompt or "") + text for text in inputs])}
        if all(isinstance(one, Image.Image) for one in inputs):
            return {"pixels": torch.stack([self._loaded.preprocess(image) for image in inputs])}
        raise ValueError(
            "a pocketclip model embeds texts (str) or pictures (PIL.Image.Image), and nothing else"
        )

    def forward(self, features: dict[str, Any], **settings: object) -> dict[str, Any]:
        """Adds `sentence_embedding`, float [B, D], rows of length 1."""
        del settings
        if "tokens" in features:
            embed_BD = self.model.encode_text(features["tokens"], normalize=True)
        else:
            embed_BD = self.model.encode_image(features["pixels"], normalize=True)
        return {**features, "sentence_embedding": embed_BD}

    def save(self, output_path: str, *args: object, **settings: object) -> None:
        """Writes the checkpoint, with the weights as they are now."""
        del args, settings
        loaded = self._loaded
        save(
            Path(output_path) / CHECKPOINT_FILE, self.model, config=loaded.config, tokenizer=loaded.tokenizer
        )

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **settings: object,
    ) -> PocketClip:
        """Reads it again.

        Raises:
            ValueError: the folder has no checkpoint.
        """
        del init_defaults, settings
        path = cls.load_file_path(
            model_name_or_path,
            filename=CHECKPOINT_FILE,
            subfolder=subfolder,
            token=token,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
        )
        if path is None:
            raise ValueError(
                f"{model_name_or_path} has no {CHECKPOINT_FILE}: export it with --host sentence-transformers"
            )
        return cls(load(path))
