"""transformers' own CLVP on the same weights, for comparison: used where it is importable, never needed.

Its generation is timed on the same prefix with the same sampling; its scoring as its users batch: padded to the
longest. Only releases up to 4.46 run its generation rightly; the figures are of whatever is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..settings import SamplingSettings


class Transformers:
    """One published directory in transformers, in one type."""

    def __init__(self, path: Path, dtype: str) -> None:
        try:
            transformers: Any = import_module("transformers")
        except ImportError:
            raise UsageError(
                "transformers is not in this environment", "pip install 'transformers<4.47', or leave --against out"
            ) from None
        transformers.logging.set_verbosity_error()
        self.name = f"transformers {transformers.__version__}"
        self.transformers = transformers
        kind = transformers.ClvpModelForConditionalGeneration
        self.model: Any = kind.from_pretrained(path, torch_dtype=getattr(torch, dtype)).eval()
        self.dtype = getattr(torch, dtype)

    @torch.inference_mode()
    def generate(self, prefix: Tensor, n: int, options: SamplingSettings) -> int:
        """n candidates behind a prefix (P, D) → codes made."""
        decoder = self.model.speech_decoder_model
        config = self.transformers.GenerationConfig(
            do_sample=True,
            num_return_sequences=n,
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            repetition_penalty=options.repetition_penalty,
            max_new_tokens=options.max_codes,
            min_new_tokens=options.min_codes,
            bos_token_id=decoder.config.bos_token_id,
            eos_token_id=decoder.config.eos_token_id,
            pad_token_id=decoder.config.eos_token_id,
        )
        made = decoder.generate(conditioning_embeds=prefix[None].to(self.dtype), generation_config=config)
        return int(made.shape[0] * options.max_codes)

    @torch.inference_mode()
    def score(
        self, ids: NDArray[np.int64], padded: NDArray[np.int64], *, text_each: bool = False
    ) -> NDArray[np.float32]:
        """Cosines (n,) of text ids and codes (n, T); the text encoded once, or once for each candidate."""
        texts = torch.from_numpy(ids).expand(len(padded) if text_each else 1, -1)
        # Release 4.46 turns positions in float32 and then meets its own halved weights: autocast lets it pass.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            said = self.model.text_encoder_model(input_ids=texts)[0]
            heard = self.model.speech_encoder_model(input_ids=torch.from_numpy(padded))[0]
        cosines: NDArray[np.float32] = torch.cosine_similarity(said.float(), heard.float()).numpy()
        return cosines


def padded(rows: Sequence[NDArray[np.int64]], length: int, fill: int) -> NDArray[np.int64]:
    """Rows of codes as one array (n, length)."""
    whole = np.full((len(rows), length), fill)
    for place, row in enumerate(rows):
        whole[place, : len(row)] = row
    return whole
