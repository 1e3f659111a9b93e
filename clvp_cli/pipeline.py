"""The story, read first: text → ids, voice → vector ⇒ prefix ⇒ N code sequences ⇒ signals ⇒ ranked candidates.

Every command and every program that uses clvp as a library goes through `Clvp`. What it needs of a model is loaded
when first used (core.py); what each step computes lives in the room of that name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from .core import Core, log
from .errors import CandidateError, CheckpointError, ConfigError, TextError, UsageError
from .locate import model_path
from .ranking import rank
from .records import Candidate, Ranked, Scored
from .settings import Settings, load_settings

if TYPE_CHECKING:
    from torch import Tensor

    from .audio.waveform import Waveform
    from .generation.engine import Generated

    Reference = str | Path | Waveform

Voice = NDArray[np.float32]  # (D,) conditioning vector
Progress = Callable[[int, int], None]

NAN_HINT = "the weights may be damaged, or too large for half precision: try --dtype float32"
TEXTS_AT_ONCE = 256  # prompts held while their candidates are made: a book is worked through in pieces
MAX_SPEECH = 60.0  # seconds of audio that a candidate may be: thrice the longest that a decoder makes


class Clvp:
    """A model ready to speak and to judge.

    >>> clvp = Clvp.load("mini")
    >>> best = clvp.best("A sentence to say.", ["voice.wav"], keep=1)[0]
    """

    def __init__(self, core: Core) -> None:
        self.core = core

    @classmethod
    def load(cls, model: str | Path | None = None, settings: Settings | None = None) -> Self:
        """A model by name, directory or hub id in the local cache. Nothing is read until it is needed."""
        settings = settings or load_settings().settings
        return cls(Core(model_path(model or settings.model), settings))

    @property
    def settings(self) -> Settings:
        """The settings of this run."""
        return self.core.settings

    def ids(self, text: str) -> NDArray[np.int64]:
        """Text → ids (S,), normalised. TextError where nothing is left of it, or more than the model reads."""
        return self.core.tokenizer.encode_for_speech(text, limit=self.core.config.decoder_config.max_text_tokens - 3)

    def clip(self, reference: Reference) -> Waveform:
        """A reference clip, read once for whatever is to be made of it: a pipe cannot be read again."""
        from .audio.waveform import Waveform, read_audio

        if isinstance(reference, Waveform):
            return reference
        return read_audio(reference, sample_rate=self.core.mel_config.sampling_rate, require_sound=True)

    def voice(self, references: Sequence[Reference]) -> Voice:
        """Reference clips, or saved voices (.npz), → one conditioning vector (D,): the mean over all their windows."""
        return np.asarray(self.voice_vectors(references).mean(0), dtype=np.float32)

    def voice_vectors(self, references: Sequence[Reference]) -> NDArray[np.float32]:
        """Reference clips or saved voices → conditioning vectors (windows, D)."""
        from .io.voices import is_saved_voice, read_voice

        if not references:
            raise UsageError("no reference voice was given", "add -r VOICE.wav (a few seconds of clean speech)")
        used = references if self.settings.voice.clips == "mean" else references[:1]
        if len(used) < len(references):
            log.warning("this profile takes the first of %d reference clips", len(references))
        width = self.core.config.decoder_config.hidden_size
        rows = [read_voice(r, width) if is_saved_voice(r) else self._windows(r) for r in used]
        return np.concatenate(rows)

    def _windows(self, reference: Reference) -> NDArray[np.float32]:
        import torch

        from .audio.voice import voice_mels

        core, windows = self.core, self.settings.voice.windows
        made = voice_mels([reference], mel_norms=core.mel_norms, windows=windows, config=core.mel_config)
        mels = torch.from_numpy(made)
        bands = core.config.decoder_config.feature_size
        if mels.shape[1] != bands:
            raise ConfigError(
                f"{core.path}: its preprocessor makes {mels.shape[1]} mel bands, its decoder hears {bands}"
            )
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self.core.conditioning.voice(self._send(mels)).float().cpu().numpy()
        return vectors

    def prefix(self, text: str, voice: Voice) -> Tensor:
        """Text and voice vector → the decoder's prefix (P, D): [voice | begin, ids, stop, stop]."""
        import torch

        from .model.conditioning import insert_stop, join_prefix

        conditioning = self.core.conditioning
        ids = known(self.ids(text), conditioning.text_token_embedding.num_embeddings)
        closed = insert_stop(torch.from_numpy(ids)[None], self.core.config.text_config.eos_token_id)
        with torch.inference_mode():
            embedded, _ = conditioning.text(closed.to(self.core.device))
            return join_prefix(self._send(torch.from_numpy(voice))[None], embedded)[0]

    def candidates(
        self, texts: Sequence[str], voice: Voice, *, progress: Progress | None = None
    ) -> Iterator[tuple[int, Candidate]]:
        """Yield (text number, candidate) as each of the settings' n candidates of each text ends.

        CheckpointError where the decoder computes no numbers; a beam finds no more candidates than it is wide.
        """
        from .generation.engine import longest_possible

        options, seed = self.settings.sampling, self.settings.seed
        if longest_possible(self.core.decoder, options) < options.max_codes:
            limit = longest_possible(self.core.decoder, options)
            log.warning("the decoder has positions for %d codes: candidates end there", limit)
        if options.found < options.n:
            log.warning("a beam of %d finds %d candidates, not %d", options.beams, options.found, options.n)
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            for g in self._generated(texts[first : first + TEXTS_AT_ONCE], voice, later(progress, first * options.n)):
                if np.isnan(g.logprob):
                    raise CheckpointError(
                        f"{self.core.path}: the decoder computes NaN, so its codes mean nothing", NAN_HINT
                    )
                yield first + g.prompt, Candidate(g.codes, g.stopped, g.index, "generated", seed, g.logprob)

    def _generated(self, texts: Sequence[str], voice: Voice, progress: Progress | None) -> Iterator[Generated]:
        from .generation.beam import beam_search
        from .generation.engine import Prompt, generate

        options, seed, batch_size = self.settings.sampling, self.settings.seed, self.settings.batch_size
        prompts = [Prompt(self.prefix(text, voice), seed, range(options.n)) for text in texts]
        if options.beams == 1:
            yield from generate(self.core.decoder, prompts, options, batch_size=batch_size, progress=progress)
            return
        for number, prompt in enumerate(prompts):
            for found in beam_search(self.core.decoder, prompt, options):
                yield dataclasses.replace(found, prompt=number)

    def score(self, text: str, candidates: Sequence[Candidate]) -> list[Scored]:
        """What each signal says of each candidate, in the given order; CheckpointError where that is no number."""
        from .signals import judge

        core = self.core
        ids = known(self.ids(text), core.config.text_config.vocab_size)
        values = judge(core.signals, core.reader, ids, candidates)
        for name, column in values.items():
            if np.isnan(column).any():
                raise CheckpointError(f"{core.path}: the signal {name} is NaN, so it judges nothing", NAN_HINT)
        scored = []
        for place, candidate in enumerate(candidates):
            signals = {name: float(column[place]) for name, column in values.items()}
            notes = () if candidate.stopped else ("not stopped",)
            scored.append(Scored(candidate, signals, signals["clvp"] / core.clvp.scale, notes))
        return scored

    def rank(self, text: str, candidates: Sequence[Candidate]) -> list[Ranked]:
        """Judge the candidates of one text, best first."""
        return rank(self.score(text, candidates), self.core.rank_weights)

    def check_ranking(self) -> None:
        """Raise UsageError where the settings ask for a signal that this model does not offer; loads nothing."""
        known = self.core.signal_names
        for name in self.core.rank_weights:
            if name not in known:
                raise UsageError(f"no signal is called {name!r}", f"this model offers {', '.join(known)}")

    def best(self, text: str, references: Sequence[Reference], keep: int | None = None) -> list[Ranked]:
        """Generate the settings' n candidates, rank them, keep the best `keep` (None: all)."""
        n = self.settings.sampling.found
        if keep is not None and not 1 <= keep <= n:
            raise UsageError(f"cannot keep {keep} of {n} candidates", "make -k at least 1, and at most -n and --beams")
        made = [candidate for _, candidate in self.candidates([text], self.voice(references))]
        return self.rank(text, sorted(made, key=lambda candidate: candidate.index))[:keep]

    def latents(self, text: str, voice: Voice, candidate: Candidate) -> NDArray[np.float32]:
        """The decoder's final_norm output (T, D) over a candidate, a vector a code: what a diffusion decoder reads."""
        from .generation.latents import winner_latents

        return winner_latents(
            self.core.decoder, self.prefix(text, voice), self.core.reader.codes(candidate, self._fixed_length())
        )

    def encode(self, audio: str | Path | bytes, source: str = "") -> Candidate:
        """Speech of any origin, at most a minute, → a candidate that stopped, through the model's codec.

        `audio` is a file, "-" for stdin, or a file's bytes, which `source` then names. AudioError where it cannot be
        read; CheckpointError where the model has no codec.
        """
        import torch

        from .audio.mel import log_mel
        from .audio.waveform import read_audio

        core, rate = self.core, self.core.mel_config.sampling_rate
        clip = read_audio(audio, sample_rate=rate, max_seconds=MAX_SPEECH, require_sound=True)
        mel = torch.from_numpy(log_mel(clip.samples, mel_norms=core.mel_norms, config=core.mel_config))
        with torch.inference_mode():
            codes = core.codec.encode(mel[None].to(core.device))[0].cpu().numpy()
        return Candidate(codes.astype(np.int64), True, 0, source or str(audio))

    def speak(self, candidate: Candidate, reference: Reference | None) -> tuple[NDArray[np.float32], int]:
        """A candidate → samples (n,), mono, about −1 … 1, and their rate in Hz, by the model's codec and Griffin-Lim.

        `reference` is the clip whose voice it has; a saved voice keeps no sound and is left out. CheckpointError where
        the model has no codec, CandidateError where there are no codes.
        """
        import torch

        from .audio.mel import invert_log_mel, log_mel
        from .io.voices import is_saved_voice

        if not candidate.length:
            where = f"{candidate.source or 'candidate'} row {candidate.index}"
            raise CandidateError(f"{where}: no codes, so no sound", "--min-codes 1 generates none such")
        core, voice = self.core, None
        with torch.inference_mode():
            if reference is not None and not is_saved_voice(reference):
                mel = log_mel(self.clip(reference).samples, mel_norms=core.mel_norms, config=core.mel_config)
                voice = torch.from_numpy(mel)[None].to(core.device)
            mel = core.codec.decode(torch.from_numpy(candidate.codes)[None].to(core.device), voice)[0].cpu().numpy()
        rate = core.mel_config.sampling_rate
        return invert_log_mel(mel, mel_norms=core.mel_norms, config=core.mel_config), rate

    def random_voice(self) -> NDArray[np.float32]:
        """The voice (1, D) that the settings' seed gives, where the model makes voices from noise."""
        import torch

        with torch.inference_mode():
            voice: NDArray[np.float32] = self.core.random_voices.sample(self.settings.seed).float().cpu().numpy()
        return voice

    def _fixed_length(self) -> int | None:
        pad = self.settings.scoring.pad
        return pad if isinstance(pad, int) else None

    def _send(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.core.device, self.core.dtype)


def known(ids: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """The ids of a text; TextError where the model has fewer text rows than its tokenizer has tokens."""
    if len(ids) and ids.max() >= rows:
        raise TextError(
            f"the text holds token {ids.max()}, the model knows {rows}",
            "its own tokenizer belongs beside its weights",
        )
    return ids


def later(progress: Progress | None, done: int) -> Progress | None:
    """The same progress for work that begins when so much is done."""
    return None if progress is None else lambda more, codes: progress(done + more, codes)
