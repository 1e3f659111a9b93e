"""The published outputs behave as transformers' ModelOutput does."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from clvp_cli import ClvpEncoderOutput, ClvpOutput


def test_fields_by_attribute_key_and_number() -> None:
    """A field is had by its name, its key and its number, and those that are None have neither key nor number."""
    out = ClvpOutput(speech_ids=torch.ones(2, 3), text_embeds=torch.zeros(1, 4))
    assert list(out.keys()) == ["speech_ids", "text_embeds"]
    assert out["speech_ids"] is out.speech_ids is out[0]
    assert out[1:] == (out.text_embeds,) == out.to_tuple()[1:]
    assert out.loss is None and "loss" not in out and len(out) == 2
    with pytest.raises(KeyError):
        out["loss"]


def test_setting_keeps_the_order() -> None:
    """A field that is set later stands where the class declares it, and None takes it out again."""
    out = ClvpOutput(text_embeds=torch.zeros(1))
    out.loss = torch.tensor(1.0)
    out["speech_ids"] = torch.ones(1)
    assert list(out) == ["loss", "speech_ids", "text_embeds"]
    out.loss = None
    assert list(out) == ["speech_ids", "text_embeds"]


def test_dict_methods_that_would_break_it() -> None:
    """Taking fields out by the dict's own methods is refused."""
    out = ClvpEncoderOutput(embeds=torch.zeros(1))
    for call in (lambda: out.pop("embeds"), lambda: out.update(embeds=1), out.clear, lambda: out.__delitem__("embeds")):
        with pytest.raises(TypeError, match="fields of a ClvpEncoderOutput are fixed"):
            call()


def test_copies() -> None:
    """Copies and pickles keep fields and keys."""
    out = ClvpEncoderOutput(embeds=torch.arange(3.0), hidden_states=(torch.ones(1),))
    for other in (copy.deepcopy(out), pickle.loads(pickle.dumps(out))):
        assert list(other) == ["embeds", "hidden_states"]
        assert torch.equal(other.embeds, out.embeds) and other["embeds"] is other.embeds
