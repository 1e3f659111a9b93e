"""What the tasks share: the model a run starts from, its clips and their features, and how the result is saved.

Owns putting trained parts back among the untouched ones, so that any run ends in a whole model directory. Knows nothing
of losses or of the loop.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..audio.features import load_extractor
from ..audio.mel import PUBLISHED, published_mel_norms
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.layout import PARTS, SCALE
from ..checkpoints.load import open_checkpoint, open_extra
from ..checkpoints.modules import build_empty, load_module
from ..checkpoints.published import weights_file
from ..checkpoints.save import MAX_SHARD_BYTES, Weights, infos_of, json_text, replacing, save_directory, write_weights
from ..config import ClvpConfig
from ..core import pick_device
from ..errors import ConfigError, InputError
from ..locate import CONFIG_NAME
from ..model.alignment import AlignmentConfig, AlignmentHead
from ..model.codec import Codec, CodecConfig
from ..text.tokenizer import load_tokenizer
from .config import TrainConfig
from .data import Clip, Draw, read_manifest
from .features import Features, Note
from .phones import PhoneConfig, PhoneRecogniser
from .sizes import check_sizes, sized

log = logging.getLogger("clvp")
M = TypeVar("M", bound=nn.Module)
SUB_CONFIGS = {"text": "text_config", "speech": "speech_config", "decoder": "decoder_config"}
SIDES: dict[str, tuple[Any, Any]] = {
    "codec": (Codec, CodecConfig),
    "alignment": (AlignmentHead, AlignmentConfig),
    "phones": (PhoneRecogniser, PhoneConfig),
}


class Workshop:
    """One run's model, clips and tools.

    Args:
        config: of the run.
        model: the model directory to start from, or None to start from nothing.
        out: the run's directory; the caches lie there unless the configuration names another place.
        note: hears the progress of long preparations.
    """

    def __init__(self, config: TrainConfig, model: Path | None, out: Path, note: Note) -> None:
        self.config, self.path = config, model
        check_sizes(config.model)
        if model is not None:
            check_hearing(model)
        self.features = Features(Path(config.data.cache) if config.data.cache else out / "cache", note)
        device = config.loop.device  # Apple's only by name: CTC is not there on all of its versions
        self.device = pick_device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)

    # ── the model ───────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def base(self) -> Checkpoint | None:
        """The model the run starts from; None for none, or for a directory that holds side models alone."""
        sides = self.path is not None and any((self.path / name).is_dir() for name in SIDES)
        if self.path is None or (sides and weights_file(self.path) is None):
            return None
        return open_checkpoint(self.path)

    @cached_property
    def model_config(self) -> ClvpConfig:
        """Shapes: the base's for parts it has, the YAML's for the others."""
        given = {key: value for key, value in self.config.model.items() if key not in SIDES}
        if self.base is None:
            return ClvpConfig.from_dict(given)
        content = self.base.config.to_dict()
        for part, key in SUB_CONFIGS.items():
            if key in given and part not in self.base.parts:
                content[key] = given[key]
        content |= {key: value for key, value in given.items() if key not in SUB_CONFIGS.values()}
        return ClvpConfig.from_dict(content)

    def has_part(self, name: str) -> bool:
        """Whether the run starts from a model that has this part."""
        return self.base is not None and name in self.base.parts

    def part(self, name: str, make: Callable[[], M]) -> M:
        """A part to train: the base's weights in float32 where it has them, else newly drawn ones."""
        if self.base is None or not self.has_part(name):
            with sized(name):
                return make().to(self.device)
        module = build_empty(make)
        self.base.load_into(module, PARTS[name], torch.float32, str(self.device))
        return module.requires_grad_(True)

    def side(self, name: str, **sizes: Any) -> nn.Module:
        """The codec, alignment head or phone recogniser to train: the base's, or a new one of the YAML's sizes over
        `sizes`."""
        found = self._find_side(name)
        if found is not None:
            return found.requires_grad_(True).to(self.device)
        kind, config = SIDES[name]
        wanted = {**sizes, **self.config.model.get(name, {})}
        with sized(name):
            return kind(config.from_dict(wanted)).to(self.device)  # type: ignore[no-any-return]

    def has_side(self, name: str) -> bool:
        """Whether the run starts from a model that has this side model."""
        return self._find_side(name) is not None

    def _find_side(self, name: str, path: Path | None = None) -> nn.Module | None:
        path = path or self.path
        if path is None:
            return None
        whole = self.base if path == self.path else None
        found = whole.extras.get(name) if whole is not None else open_extra(path, name)
        if found is None:
            return None
        kind, config = SIDES[name]
        module = build_empty(lambda: kind(config.from_dict(dict(found.config))))
        return load_module(module, found.state(), torch.float32, where=str(found.path))

    def seed_embedding(self, table: Tensor, size: float) -> None:
        """Start a new table of code vectors (codes or more, D) from the codec's codebook, where the run has a codec.

        Codes that sound alike begin alike, which a small corpus would take long to find out. The codebook's directions
        are turned at random into the wider table, rows of norm `size`.
        """
        codec = self._found_codec
        if not isinstance(codec, Codec):
            return
        vectors = torch.nn.functional.normalize(codec.codebook.embed.t().float(), dim=1)
        turn = torch.nn.init.orthogonal_(torch.empty(vectors.shape[1], table.shape[1]))
        rows = min(len(table), len(vectors))
        with torch.no_grad():
            table[:rows] = ((vectors @ turn)[:rows] * size).to(table.device)

    @cached_property
    def scale(self) -> float:
        """The logit scale to start from."""
        if self.base is not None and SCALE in self.base.tensors:
            return float(self.base.state([SCALE])[SCALE])
        return float(self.model_config.logit_scale_init_value)

    # ── the clips ───────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def clips(self) -> list[Clip]:
        """Every clip of the manifest whose audio can be read."""
        tokenizer = load_tokenizer(self.path if self.base is not None and self.path and self.path.is_dir() else None)
        data = self.config.data
        clips = self.features.make_mels(read_manifest(Path(data.manifest), tokenizer.encode, data.held_out))
        if not clips:
            raise InputError(f"{data.manifest}: no clip whose audio can be read", "audio paths are relative to it")
        return clips

    def coded(self) -> list[Clip]:
        """Every clip that has codes of the model's vocabulary and an acceptable length."""
        codec = self._found_codec
        name = "none" if codec is None else fingerprint(codec)
        clips = self.features.make_codes(self.clips, codec, name, self.config.data.variants)
        data = self.config.data
        fitting = [c for c in clips if data.min_seconds <= self.features.seconds(c) <= data.max_seconds]
        if not fitting:
            raise InputError(
                f"{data.manifest}: no clip of {data.min_seconds:g} to {data.max_seconds:g} s",
                "widen data.min_seconds and data.max_seconds",
            )
        vocabulary = self.model_config.decoder_config.bos_token_id
        for clip in fitting:
            if clip.codes and max(clip.codes) >= vocabulary:
                raise InputError(
                    f"{data.manifest}: code {max(clip.codes)} of {clip.text[:30]!r} is outside the vocabulary "
                    f"(0 … {vocabulary - 1})",
                    "was it made by a model with another codebook?",
                )
        return fitting

    @cached_property
    def _found_codec(self) -> Codec | None:
        place = Path(self.config.data.codec) if self.config.data.codec else self.path
        found = self._find_side("codec", place) if place else None
        if self.config.data.codec and found is None:
            raise ConfigError(f"{place}: no codec in it", "data.codec is a model directory with a codec")
        return found  # type: ignore[return-value]

    def lay_phones(self, clips: Sequence[Clip]) -> PhoneRecogniser | None:
        """Lay the phones of clips along their frames (`features.places` then tells) by the recogniser of data.phones,
        which is returned; None where none is named.

        Raises:
            ConfigError: data.phones is named and holds no recogniser.
        """
        if not self.config.data.phones:
            return None
        found = self._find_side("phones", Path(self.config.data.phones))
        if not isinstance(found, PhoneRecogniser):
            raise ConfigError(
                f"{self.config.data.phones}: no recogniser of phones in it", "clvp train phones makes one"
            )
        found.eval().requires_grad_(False)
        self.features.make_places(clips, found, fingerprint(found))
        return found.to(self.device)

    def draws(self, clips: Sequence[Clip], lengths: Sequence[int]) -> tuple[Draw | None, Draw | None]:
        """Batches to train on and batches to evaluate on, as places in `clips`; None where there are no such clips.

        Both are of one mixture: the best weights are those that are best at what they are trained for.
        """
        loop, shares = self.config.loop, self.config.data.shares
        unknown = sorted(set(shares) - {clip.source for clip in clips})
        if unknown:
            log.warning("data.shares: no clip is of source %s", ", ".join(unknown))
        made: list[Draw | None] = []
        for held_out in (False, True):
            places = [i for i, clip in enumerate(clips) if clip.held_out == held_out]
            weights = [float(shares.get(clips[i].source, 1.0)) for i in places]
            if not places or not any(weights):
                made.append(None)
                continue
            lengths_here = [lengths[i] for i in places]
            made.append(Draw(places, lengths_here, weights, loop.batch_frames, loop.batch_clips, loop.seed + held_out))
        return made[0], made[1]

    # ── the result ──────────────────────────────────────────────────────────────────────────────────────────────────

    def save(
        self, path: Path, parts: Mapping[str, nn.Module], sides: Mapping[str, nn.Module], scale: Tensor | None = None
    ) -> None:
        """Write the base with `parts` and `sides` in place of its own as a model directory, replacing what is there."""
        extras = {} if self.base is None else {n: (e.config, e.state()) for n, e in self.base.extras.items()}
        extras |= {name: (side.config.to_dict(), _state(side)) for name, side in sides.items()}  # type: ignore[union-attr, operator]
        if "codec" not in extras and isinstance(codec := self._found_codec, Codec):
            extras["codec"] = (codec.config.to_dict(), _state(codec))
        state = {} if self.base is None else self.base.state()
        for name, module in parts.items():
            state |= {PARTS[name] + key: tensor for key, tensor in _state(module).items()}
        if scale is not None:
            state[SCALE] = scale.detach().float().cpu()
        if not state:
            with replacing(path, True) as directory:
                (directory / CONFIG_NAME).write_text(self.model_config.to_json_string(), encoding="utf-8")
                for name, (sizes, side_state) in extras.items():
                    (directory / name).mkdir()
                    weights = Weights(json_text(sizes), infos_of(side_state), side_state.__getitem__)
                    write_weights(directory / name, weights, None, MAX_SHARD_BYTES)
            return
        if ("text" in parts or "speech" in parts) and SCALE not in state:
            state[SCALE] = torch.tensor(self.scale)
        companions = self.path if self.base is not None and self.path and self.path.is_dir() else None
        save_directory(path, self.model_config, state, extras=extras, companions=companions, force=True)


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def fingerprint(module: nn.Module) -> str:
    """A short name that changes with the weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def check_hearing(model: Path) -> None:
    """ConfigError where a model's preprocessor makes other log-mels than the published ones, which training hears."""
    extractor, norms = load_extractor(model), published_mel_norms()
    given = np.asarray([] if extractor.mel_norms is None else extractor.mel_norms)
    config = dataclasses.replace(extractor.config, default_audio_length=PUBLISHED.default_audio_length)
    if config != PUBLISHED or given.shape != norms.shape or not np.allclose(given, norms, atol=1e-4):
        raise ConfigError(
            f"{model}: other log-mels than the published ones, which training hears",
            "train from a model with the published preprocessor",
        )
