"""The published documentation's own examples, with only the import line changed.

The hub's checkpoint lies in a local cache made here, of a small model, and a local sound file is the data set.
Source: docstrings and model_doc/clvp of transformers 4.46.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import clvp_cli
from clvp_cli import ClvpConfig, ClvpFeatureExtractor, ClvpModelForConditionalGeneration, ClvpProcessor, ClvpTokenizer
from clvp_cli.audio.mel import published_mel_norms

PARTS = [
    "ClvpTokenizer",
    "ClvpFeatureExtractor",
    "ClvpConfig",
    "ClvpEncoderConfig",
    "ClvpDecoderConfig",
    "GenerationConfig",
]
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


@pytest.fixture(scope="module", autouse=True)
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A hub cache with the published repository, of a small model of random weights."""
    repository = tmp_path_factory.mktemp("hub") / "models--susnato--clvp_dev"
    directory = repository / "snapshots" / "0123abc"
    directory.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc", encoding="ascii")
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(repository.parent))
        yield directory


def run(example: str) -> dict[str, Any]:
    """Run an example with its import line and its sound file changed; returns its names."""
    source = example.replace("from transformers import", "from clvp_cli import")
    names: dict[str, Any] = {"AUDIO": str(VOICE)}
    exec(compile(source, "example", "exec"), names)
    return names


def test_brief_usage() -> None:
    """The documentation's brief usage generates a candidate with its score."""
    torch.manual_seed(0)
    names = run(BRIEF_USAGE)
    speech_ids, logits = names["generated_output"][:2]
    assert speech_ids.shape[0] == 1 and 1 <= speech_ids.shape[1] <= 24 and int(speech_ids.max()) < 8192
    assert logits.shape == (1, 1) and abs(float(logits)) < 15
    assert names["processor_output"]["input_ids"].tolist()[0][:4] == [147, 2, 54, 2]


def test_forward() -> None:
    """The forward example gives one similarity."""
    assert run(FORWARD)["outputs"].logits_per_text.shape == (1, 1)


def test_features() -> None:
    """The examples of both feature methods give embeddings."""
    assert run(TEXT_FEATURES)["text_embeds"].shape == (1, 32)
    assert run(SPEECH_FEATURES)["speech_embeds"].shape == (1, 32)


def test_tokenizer() -> None:
    """The tokenizer's example gives the ids that the documentation prints."""
    names = run(TOKENIZER)
    assert names["first"] == [62, 84, 28, 2, 179, 79] and names["second"] == [2, 62, 84, 28, 2, 179, 79]


@pytest.mark.parametrize("kind", [*PARTS, "GenerationConfig"])
def test_each_part_is_found_by_name(kind: str, checkpoint: Path) -> None:
    """A hub id in the cache, the embedded model's name and a directory are all names of a model."""
    load = getattr(clvp_cli, kind).from_pretrained
    held = [vars(load(name)) for name in ("susnato/clvp_dev", checkpoint, "mini")]
    assert held[0].keys() == held[1].keys() == held[2].keys()
    with pytest.raises(clvp_cli.ClvpError, match="no model called"):
        load("susnato/another")


@pytest.mark.parametrize("example", [ENCODER_CONFIG, DECODER_CONFIG, CONFIG], ids=["encoder", "decoder", "whole"])
def test_configurations(example: str) -> None:
    """The configurations' examples make full-size models (here without memory for their weights)."""
    with torch.device("meta"):
        names = run(example)
    assert names["model"].config is names["configuration"]
