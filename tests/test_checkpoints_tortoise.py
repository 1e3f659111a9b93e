"""Tortoise's files: adapted by tables to the published state, strictly, whatever the files are called."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoint_makers import (
    WIDTH,
    published_state,
    small_config,
    tortoise_autoregressive,
    tortoise_clvp,
    write_tortoise,
)
from safetensors.torch import save_file
from torch import Tensor

from clvp_cli.checkpoints.load import open_checkpoint
from clvp_cli.checkpoints.modules import build_empty, load_module
from clvp_cli.errors import CheckpointError

CONFIG = small_config()
STATE = published_state(CONFIG)


def edited(directory: Path, file: str, **changes: Tensor | None) -> None:
    """Rewrite one file with tensors replaced, added, or (None) removed; "__" in a keyword stands for a dot."""
    state = torch.load(directory / file, weights_only=True)
    for name, value in changes.items():
        state.pop(name.replace("__", "."), None)
        if value is not None:
            state[name.replace("__", ".")] = value
    torch.save(state, directory / file)


@pytest.fixture
def tortoise(tmp_path: Path) -> Path:
    """A directory of Tortoise's two files."""
    return write_tortoise(tmp_path / "tortoise", CONFIG, STATE)


def test_state_is_the_published_one(tortoise: Path) -> None:
    """Both files together load to exactly the published state and sizes."""
    checkpoint = open_checkpoint(tortoise)
    assert checkpoint.format == "tortoise"
    state = checkpoint.state()
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert checkpoint.config == CONFIG


def test_files_are_known_by_content(tortoise: Path) -> None:
    """Other names, safetensors, and foreign files beside them change nothing."""
    (tortoise / "autoregressive.pth").rename(tortoise / "my-finetune.pt")
    (tortoise / "clvp2.pth").unlink()
    save_file(
        {name: tensor.contiguous() for name, tensor in tortoise_clvp(STATE, CONFIG).items()}, tortoise / "b.safetensors"
    )
    torch.save({"model_g": {"conv": torch.zeros(1)}}, tortoise / "vocoder.pth")
    (tortoise / "broken.pth").write_bytes(b"PK")
    checkpoint = open_checkpoint(tortoise)
    assert checkpoint.parts == ("conditioning", "decoder", "text", "speech")
    assert set(checkpoint.ignored) == {"vocoder.pth", "broken.pth"}


def test_broken_file_of_a_known_name_is_an_error(tortoise: Path) -> None:
    """A truncated clvp2.pth is not passed over."""
    (tortoise / "clvp2.pth").write_bytes((tortoise / "clvp2.pth").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"clvp2\.pth: truncated"):
        open_checkpoint(tortoise)


def test_two_of_a_kind_are_ambiguous(tortoise: Path) -> None:
    """The usual name wins; without it two files of one kind are an error that names both."""
    copy = (tortoise / "autoregressive.pth").read_bytes()
    (tortoise / "a.pth").write_bytes(copy)
    assert open_checkpoint(tortoise).ignored == {"a.pth": "autoregressive.pth is there already"}
    (tortoise / "autoregressive.pth").rename(tortoise / "b.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth and b\.pth are both"):
        open_checkpoint(tortoise)


@pytest.mark.parametrize(
    ("file", "name", "value", "told"),
    [
        ("autoregressive.pth", "gpt__h__1__mlp__c_fc__bias", None, r"1 missing: gpt\.h\.1\.mlp\.c_fc\.bias"),
        ("autoregressive.pth", "mel_solo_embedding", torch.zeros(1), "1 unknown: mel_solo_embedding"),
        (
            "autoregressive.pth",
            "final_norm__weight",
            torch.zeros(3),
            r"1 misshapen: .*final_norm\.weight \[3\], not \[64\]",
        ),
        ("autoregressive.pth", "conditioning_encoder__attn__0__qkv__bias", torch.zeros(7), "unexpected shape"),
        ("autoregressive.pth", "mel_embedding__weight", torch.zeros(7), "unexpected shape"),
        ("autoregressive.pth", "mel_pos_embedding__emb__weight", None, "1 missing: mel_pos_embedding"),
        ("autoregressive.pth", "gpt__h__999999999__x", torch.zeros(1), r"1 unknown: gpt\.h\.999999999\.x"),
        ("clvp2.pth", "to_text_latent__bias", torch.zeros(1), r"1 unknown: to_text_latent\.bias"),
        ("clvp2.pth", "temperature", None, "1 missing: temperature"),
        ("clvp2.pth", "temperature", torch.zeros(2), r"logit_scale \[2\], not \[\]"),
    ],
)
def test_faulty_key_is_named(tortoise: Path, file: str, name: str, value: Tensor | None, told: str) -> None:
    """A key that the table does not know, lacks or finds in another shape is an error that names it."""
    edited(tortoise, file, **{name: value})
    with pytest.raises(CheckpointError, match=told):
        open_checkpoint(tortoise)


def test_judge_alone_can_score_but_not_generate(tortoise: Path) -> None:
    """With clvp2.pth alone the encoders load, and asking for the decoder says what is missing and what works."""
    (tortoise / "autoregressive.pth").unlink()
    checkpoint = open_checkpoint(tortoise)
    assert checkpoint.parts == ("text", "speech")
    checkpoint.require("text", "speech")
    with pytest.raises(CheckpointError, match="no decoder weights: this model cannot generate candidates") as caught:
        checkpoint.state(["decoder"])
    assert "it can score candidates" in str(caught.value.hint)


def test_one_file_is_a_model(tortoise: Path) -> None:
    """A single file may be named."""
    assert open_checkpoint(tortoise / "autoregressive.pth").parts == ("conditioning", "decoder")


def test_finetuned_text_rows_are_read(tortoise: Path) -> None:
    """A fine-tune with its own text vocabulary keeps it beside the text encoder's."""
    from clvp_cli.model.clvp import ClvpNetwork

    edited(
        tortoise,
        "autoregressive.pth",
        text_embedding__weight=torch.ones(300, WIDTH),
        text_head__weight=torch.ones(300, WIDTH),
        text_head__bias=torch.ones(300),
    )
    checkpoint = open_checkpoint(tortoise)
    assert checkpoint.config.text_config.vocab_size == 256
    network = build_empty(lambda: ClvpNetwork(checkpoint.config))
    checkpoint.load_into(network, "", None)
    assert network.conditioning_encoder.text_token_embedding.num_embeddings == 300


def test_foreign_heads_are_refused(tortoise: Path) -> None:
    """An encoder whose attention is not as wide as itself has no place in the published layout."""
    name = "text_transformer__transformer__attn_layers__layers__0__1__wrap__to_q__weight"
    edited(tortoise, "clvp2.pth", **{name: torch.zeros(2 * WIDTH, WIDTH)})
    with pytest.raises(CheckpointError, match="attention of width 128 in an encoder of width 64"):
        open_checkpoint(tortoise)


def test_nothing_there_says_what_a_model_is(tmp_path: Path) -> None:
    """An empty directory, a missing one and an unrelated file are told, with what was expected."""
    (tmp_path / "readme.md").write_text("hello")
    with pytest.raises(CheckpointError, match="no model in it") as caught:
        open_checkpoint(tmp_path)
    assert "autoregressive.pth" in str(caught.value.hint)
    with pytest.raises(CheckpointError, match="no such file or directory"):
        open_checkpoint(tmp_path / "nowhere")
    torch.save({"conv": torch.zeros(1)}, tmp_path / "vocoder.pth")
    with pytest.raises(CheckpointError, match="no model in it"):
        open_checkpoint(tmp_path / "vocoder.pth")


def dvae(codes: int) -> dict[str, Tensor]:
    """A codec file with that many codes, with what its training leaves in it."""
    from clvp_cli.model.codec import Codec, CodecConfig

    state = Codec(CodecConfig(num_codes=codes, codebook_dim=8, hidden_size=4)).state_dict()
    state["codebook.cluster_size"], state["codebook.embed_avg"] = torch.zeros(codes), torch.zeros(8, codes)
    state["discrete_loss.accumulator"] = torch.zeros(2, codes)
    return state


def test_side_models_are_found(tortoise: Path) -> None:
    """The codec, CVVP and the random-voice generator beside the model are its extras, ready for their modules."""
    from clvp_cli.model.codec import Codec, CodecConfig
    from clvp_cli.model.random_voice import RandomVoice, RandomVoiceConfig

    state = dvae(CONFIG.decoder_config.bos_token_id)
    torch.save(state, tortoise / "dvae.pth")
    torch.save(RandomVoice(RandomVoiceConfig(hidden_size=WIDTH)).state_dict(), tortoise / "rlg_auto.pth")
    torch.save(RandomVoice(RandomVoiceConfig(hidden_size=8)).state_dict(), tortoise / "rlg_diffuser.pth")
    extras = open_checkpoint(tortoise).extras
    assert set(extras) == {"codec", "random_voice"}
    codec = build_empty(lambda: Codec(CodecConfig.from_dict(dict(extras["codec"].config))))
    load_module(codec, extras["codec"].state())
    assert torch.equal(codec.codebook.embed, state["codebook.embed"])


def test_another_models_generator_is_no_voice(tortoise: Path) -> None:
    """The diffusion decoder's noise network, of the same names, is not taken for the decoder's."""
    from clvp_cli.model.random_voice import RandomVoice, RandomVoiceConfig

    torch.save(RandomVoice(RandomVoiceConfig(hidden_size=8)).state_dict(), tortoise / "rlg_diffuser.pth")
    checkpoint = open_checkpoint(tortoise)
    assert not checkpoint.extras
    assert "vectors of 8" in checkpoint.ignored["rlg_diffuser.pth"]


def test_codec_of_another_model_is_refused(tortoise: Path, tmp_path: Path) -> None:
    """A codec with other codes than the model speaks, such as XTTS-v2's with 1024, is refused by name."""
    torch.save(dvae(1024), tortoise / "dvae.pth")
    with pytest.raises(CheckpointError, match=r"dvae\.pth: 1024 codes, the model speaks 30: XTTS-v2's codec"):
        open_checkpoint(tortoise)
    with pytest.raises(CheckpointError, match="1024 codes, the model speaks 8192"):
        torch.save(dvae(1024), tmp_path / "dvae.pth")
        open_checkpoint(tmp_path / "dvae.pth")
    torch.save(dvae(29), tortoise / "dvae.pth")
    with pytest.raises(CheckpointError, match="another model's codec"):
        open_checkpoint(tortoise)


def test_pickle_with_code_is_refused(tortoise: Path) -> None:
    """A clvp2.pth that would run a program is refused, and the program does not run."""
    import os

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tortoise / "sprung"),)

    torch.save({**tortoise_autoregressive(STATE, CONFIG), "x": Trap()}, tortoise / "autoregressive.pth")
    with pytest.raises(CheckpointError, match=r"autoregressive\.pth: refused"):
        open_checkpoint(tortoise)
    assert not (tortoise / "sprung").exists()


def test_adapted_weights_compute_what_tortoise_does(tmp_path: Path) -> None:
    """Tortoise's own files, through the tables, give Tortoise's voice vector, logits and scores (golden files).

    1e-4 of logits up to about 20: the reference rounds its softmax and norms in another order.
    """
    import shutil

    import numpy as np

    from clvp_cli.model.clvp import ClvpNetwork, unit

    golden = Path(__file__).parent / "golden"
    for file in ("autoregressive.pth", "clvp2.pth"):
        shutil.copyfile(golden / file, tmp_path / file)
    (tmp_path / "config.json").write_text(
        '{"decoder_config": {"num_attention_heads": 3}, "text_config": {"rms_norm": "clamp"},'
        ' "speech_config": {"rms_norm": "clamp"}}'
    )
    checkpoint = open_checkpoint(tmp_path)
    network = build_empty(lambda: ClvpNetwork(checkpoint.config))
    checkpoint.load_into(network, "", torch.float32)
    with np.load(golden / "tortoise.npz") as arrays:
        want = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    with torch.no_grad():
        vector = network.conditioning_encoder.voice(want["mels"][0]).mean(0, keepdim=True)
        torch.testing.assert_close(vector, want["vector"], atol=1e-5, rtol=1e-5)
        text, _ = network.conditioning_encoder.text(want["ids"].long()[:, :-1])
        codes = torch.nn.functional.pad(want["row"].long(), (1, 0), value=256)
        prefix = torch.cat((vector.unsqueeze(1), text, _second_stop(network, want["ids"].shape[1] + 1)), dim=1)
        logits = network.speech_decoder_model.logits(network.speech_decoder_model.teacher_forced(prefix, codes))
        torch.testing.assert_close(logits, want["logits"], atol=1e-4, rtol=1e-4)
        heard = unit(network.speech_encoder_model.embed(want["fixed"].long()))
        read = unit(network.text_encoder_model.embed(want["ids"].long()))
        torch.testing.assert_close(heard, want["clvp.speech"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close((heard @ read.t())[:, 0] * network.logit_scale.exp(), want["clvp.scores"])


def _second_stop(network: torch.nn.Module, position: int) -> Tensor:
    """The embedding of the second stop that the decoder's prompt ends with, (1, 1, D)."""
    encoder = network.conditioning_encoder
    embedded: Tensor = encoder.text_token_embedding.weight[0] + encoder.text_position_embedding.weight[position]
    return embedded.view(1, 1, -1)
