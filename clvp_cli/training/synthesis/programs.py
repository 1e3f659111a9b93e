"""Debian's small synthesisers as programs: flite, festival (through text2wave), espeak-ng.

Each writes one .wav file for one text. Owns nothing of the corpus.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from clvp_cli.errors import InputError
from clvp_cli.training.synthesis.engine import Speech, need


class Program:
    """One of `flite`, `festival`, `espeak`."""

    def __init__(self, name: str) -> None:
        self.name, self.soundfile = name, need("soundfile", "soundfile")

    def command(self, text: str, voice: dict[str, Any], wav: str) -> list[str]:
        """The program and its arguments for a voice {"name", "speed"} and, for espeak, "pitch" 0–99."""
        name, stretch = str(voice["name"]), voice.get("formant", 1.0) / voice["speed"]
        if self.name == "flite":
            return ["flite", "-voice", name, "--setf", f"duration_stretch={stretch}", "-t", text, "-o", wav]
        if self.name == "festival":
            setting = f"(begin (voice_{name}) (Parameter.set 'Duration_Stretch {stretch}))"
            return ["text2wave", "-o", wav, "-eval", setting]
        rate = str(int(165 / stretch))
        return ["espeak-ng", "-v", name, "-s", rate, "-p", str(voice.get("pitch", 50)), "-w", wav, text]

    def __call__(self, text: str, voice: dict[str, Any], rng: np.random.Generator) -> Speech:
        """A voice as `command` says, and "formant": factor → speech."""
        with tempfile.NamedTemporaryFile(suffix=".wav") as wav:
            command = self.command(text, voice, wav.name)
            try:
                subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=60)
            except (OSError, subprocess.SubprocessError) as error:
                raise InputError(f"{command[0]} did not speak: {error}", f"apt-get install {self.name}") from error
            samples, rate = self.soundfile.read(Path(wav.name), dtype="float32")
        return Speech(samples, rate * voice.get("formant", 1.0))
