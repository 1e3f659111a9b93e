"""The published documentation's own examples, with only the import line changed.

In place of the hub's they are given a local checkpoint directory, and a local sound file in place of the data set.
Source: docstrings and model_doc/clvp of transformers 4.46.3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import clvp_cli
from clvp_cli import ClvpConfig, ClvpFeatureExtractor, ClvpModelForConditionalGeneration, ClvpProcessor, ClvpTokenizer
from clvp_cli.audio.mel import published_mel_norms

VOICE = Path(clvp_cli.__file__).parent / "assets" / "voice.flac"

BRIEF_USAGE = """
import soundfile
from transformers import ClvpProcessor, ClvpModelForConditionalGeneration

# Define the Text and Load the Audio
text = "This is an example text."
array, sampling_rate = soundfile.read(AUDIO)
sample = {"array": array, "sampling_rate": sampling_rate}

# Define processor and model.
processor = ClvpProcessor.from_pretrained("susnato/clvp_dev")
model = ClvpModelForConditionalGeneration.from_pretrained("susnato/clvp_dev")

# Generate processor output and model output.
processor_output = processor(
    raw_speech=sample["array"], sampling_rate=sample["sampling_rate"], text=text, return_tensors="pt"
)
generated_output = model.generate(**processor_output)
"""

FORWARD = """
import soundfile
from transformers import ClvpProcessor, ClvpModelForConditionalGeneration

text = "This is an example text."
audio, sr = soundfile.read(AUDIO)

# Define processor and model
processor = ClvpProcessor.from_pretrained("susnato/clvp_dev")
model = ClvpModelForConditionalGeneration.from_pretrained("susnato/clvp_dev")

# processor outputs and model outputs
processor_output = processor(raw_speech=audio, sampling_rate=sr, text=text, return_tensors="pt")
outputs = model(
    input_ids=processor_output["input_ids"],
    input_features=processor_output["input_features"],
    return_dict=True,
)
"""

TEXT_FEATURES = """
from transformers import ClvpProcessor, ClvpModelForConditionalGeneration

# Define the Text
text = "This is an example text."

# Define processor and model
processor = ClvpProcessor.from_pretrained("susnato/clvp_dev")
model = ClvpModelForConditionalGeneration.from_pretrained("susnato/clvp_dev")

# Generate processor output and text embeds
processor_output = processor(text=text, return_tensors="pt")
text_embeds = model.get_text_features(input_ids=processor_output["input_ids"])
"""

SPEECH_FEATURES = """
import soundfile
from transformers import ClvpProcessor, ClvpModelForConditionalGeneration

text = "This is an example text."
audio, sr = soundfile.read(AUDIO)

# Define processor and model
processor = ClvpProcessor.from_pretrained("susnato/clvp_dev")
model = ClvpModelForConditionalGeneration.from_pretrained("susnato/clvp_dev")

# Generate processor output and model output
processor_output = processor(raw_speech=audio, sampling_rate=sr, text=text, return_tensors="pt")
speech_embeds = model.get_speech_features(
    input_ids=processor_output["input_ids"], input_features=processor_output["input_features"]
)
"""

TOKENIZER = """
from transformers import ClvpTokenizer

tokenizer = ClvpTokenizer.from_pretrained("susnato/clvp_dev")
first = tokenizer("Hello world")["input_ids"]
second = tokenizer(" Hello world")["input_ids"]
"""

ENCODER_CONFIG = """
from transformers import ClvpEncoderConfig, ClvpEncoder

# Initializing a ClvpEncoderConfig with susnato/clvp_dev style configuration
encoder_configuration = ClvpEncoderConfig()

# Initializing a ClvpEncoder (with random weights) from the susnato/clvp_dev style configuration
model = ClvpEncoder(encoder_configuration)

# Accessing the model configuration
configuration = model.config
"""

DECODER_CONFIG = """
from transformers import ClvpDecoderConfig, ClvpDecoder

# Initializing a ClvpDecoderConfig with susnato/clvp_dev style configuration
decoder_configuration = ClvpDecoderConfig()

# Initializing a ClvpDecoder (with random weights) from the susnato/clvp_dev style configuration
model = ClvpDecoder(decoder_configuration)

# Accessing the model configuration
configuration = model.config
"""

CONFIG = """
from transformers import ClvpConfig, ClvpModelForConditionalGeneration

# Initializing a ClvpConfig with susnato/clvp_dev style configuration
configuration = ClvpConfig()

# Initializing a ClvpModelForConditionalGeneration (with random weights) from the susnato/clvp_dev style configuration
model = ClvpModelForConditionalGeneration(configuration)

# Accessing the model configuration
configuration = model.config

# We can also initialize a CLVPConfig from a CLVPTextConfig, CLVPSpeechConfig and a CLVPAutoRegressiveConfig
from transformers import ClvpEncoderConfig, ClvpDecoderConfig

# Initializing a CLVP text, CLVP speech and CLVP decoder configuration
config_text = ClvpEncoderConfig()
config_speech = ClvpEncoderConfig()
decoder_config = ClvpDecoderConfig()

config = ClvpConfig.from_sub_model_configs(config_text, config_speech, decoder_config)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as the published repository's, of a small model of random weights."""
    directory = tmp_path_factory.mktemp("clvp_dev")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "projection_dim": 32, "num_hidden_layers": 1}
    encoder = {**sizes, "num_attention_heads": 1}
    config = ClvpConfig(
        text_config=encoder,
        speech_config={**encoder, "vocab_size": 8192},
        decoder_config={
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_mel_attn_blocks": 1,
        },
        projection_dim=32,
    )
    torch.manual_seed(0)
    model = ClvpModelForConditionalGeneration(config)
    model.generation_config.update(do_sample=True, max_new_tokens=24)
    model.save_pretrained(directory)
    ClvpProcessor(ClvpFeatureExtractor(mel_norms=published_mel_norms()), ClvpTokenizer()).save_pretrained(directory)
    return directory


def run(example: str, checkpoint: Path | str = "unused") -> dict[str, Any]:
    """Run an example with its import line, its checkpoint and its sound file changed; returns its names."""
    source = example.replace("from transformers import", "from clvp_cli import").replace(
        "susnato/clvp_dev", str(checkpoint)
    )
    names: dict[str, Any] = {"AUDIO": str(VOICE)}
    exec(compile(source, "example", "exec"), names)
    return names


def test_brief_usage(checkpoint: Path) -> None:
    """The documentation's brief usage generates a candidate with its score."""
    torch.manual_seed(0)
    names = run(BRIEF_USAGE, checkpoint)
    speech_ids, logits = names["generated_output"][:2]
    assert speech_ids.shape[0] == 1 and 1 <= speech_ids.shape[1] <= 24 and int(speech_ids.max()) < 8192
    assert logits.shape == (1, 1) and abs(float(logits)) < 15
    assert names["processor_output"]["input_ids"].tolist()[0][:4] == [147, 2, 54, 2]


def test_forward(checkpoint: Path) -> None:
    """The forward example gives one similarity."""
    assert run(FORWARD, checkpoint)["outputs"].logits_per_text.shape == (1, 1)


def test_features(checkpoint: Path) -> None:
    """The examples of both feature methods give embeddings."""
    assert run(TEXT_FEATURES, checkpoint)["text_embeds"].shape == (1, 32)
    assert run(SPEECH_FEATURES, checkpoint)["speech_embeds"].shape == (1, 32)


def test_tokenizer(checkpoint: Path) -> None:
    """The tokenizer's example gives the ids that the documentation prints."""
    names = run(TOKENIZER, checkpoint)
    assert names["first"] == [62, 84, 28, 2, 179, 79] and names["second"] == [2, 62, 84, 28, 2, 179, 79]


@pytest.mark.parametrize("example", [ENCODER_CONFIG, DECODER_CONFIG, CONFIG], ids=["encoder", "decoder", "whole"])
def test_configurations(example: str) -> None:
    """The configurations' examples make full-size models (here without memory for their weights)."""
    with torch.device("meta"):
        names = run(example)
    assert names["model"].config is names["configuration"]
