"""ClvpEncoder against values of transformers 4.46.3."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import golden_files
import pytest
import torch
from published_models import golden_model, small_model

from clvp_cli import ClvpEncoder
from clvp_cli.errors import ConfigError, InputError

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("name", ["hf_partial", "hf_biased"])
@pytest.mark.parametrize(("part", "ids"), [("text", "ids"), ("speech", "codes")])
def test_golden(name: str, part: str, ids: str, tmp_path: Path) -> None:
    """Every layer and, for each summary type, the pooled and projected vectors are the published ones."""
    golden = golden_files.tensors(name)
    encoder: ClvpEncoder = getattr(golden_model(name, tmp_path), f"{part}_encoder_model")
    out = encoder(golden[ids], output_hidden_states=True)
    torch.testing.assert_close(torch.stack(out.hidden_states), golden[f"{part}.hidden"], **CLOSE)
    torch.testing.assert_close(out.last_hidden_state, golden[f"{part}.last_hidden_state"], **CLOSE)
    for summary in ("mean", "last", "first", "cls_index"):
        encoder.config = dataclasses.replace(encoder.config, summary_type=summary)
        out = encoder(golden[ids])
        torch.testing.assert_close(out.pooler_output, golden[f"{part}.pooled_{summary}"], **CLOSE)
        torch.testing.assert_close(out.embeds, golden[f"{part}.embeds_{summary}"], **CLOSE)


def test_golden_mask(tmp_path: Path) -> None:
    """Under a mask the kept positions are the published ones; the summary leaves pads out, here alone."""
    golden = golden_files.tensors("hf_partial")
    encoder = golden_model("hf_partial", tmp_path).text_encoder_model
    ids, mask = golden["ids"], golden["mask"]
    out = encoder(ids, attention_mask=mask)
    kept = mask.bool()
    torch.testing.assert_close(out.last_hidden_state[kept], golden["text.masked_last_hidden_state"][kept], **CLOSE)
    torch.testing.assert_close(out.embeds[0], golden["text.masked_embeds"][0], **CLOSE)
    alone = encoder(ids[1:, : int(mask[1].sum())])
    torch.testing.assert_close(out.embeds[1:], alone.embeds, **CLOSE)


def test_outputs() -> None:
    """Attentions add up to one, embeddings serve for ids, and a tuple comes without return_dict."""
    encoder = small_model().text_encoder_model
    ids = torch.tensor([[5, 6, 7]])
    out = encoder(ids, output_attentions=True, output_hidden_states=True)
    assert [tuple(a.shape) for a in out.attentions] == [(1, 1, 3, 3)] and len(out.hidden_states) == 2
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones(1, 1, 3))
    plain = encoder(inputs_embeds=encoder.get_input_embeddings()(ids), return_dict=False)
    assert isinstance(plain, tuple) and len(plain) == 3
    torch.testing.assert_close(plain[0], out.embeds, **CLOSE)
    moved = encoder(ids, position_ids=torch.tensor([[2, 1, 0]]))
    assert not torch.allclose(moved.embeds, out.embeds)


def test_refusals() -> None:
    """Both kinds of input, none, or another class's configuration are errors that say so."""
    model = small_model()
    with pytest.raises(InputError, match="exactly one of"):
        model.text_encoder_model()
    with pytest.raises(ValueError, match="exactly one of"):
        model.text_encoder_model(torch.ones(1, 2, dtype=torch.long), torch.ones(1, 2, 32))
    with pytest.raises(ConfigError, match="takes a ClvpEncoderConfig, not a ClvpConfig"):
        ClvpEncoder(model.config)
