"""`clvp voice`: reference clips → a saved conditioning vector, or a random voice."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import UsageError
from .inputs import check_stdin
from .options import CONFIG, MODEL, SEED, Out, Run, command
from .outputs import check_file_output, check_inputs_stay
from .program import app


@command(app, "voice", MODEL, SEED, CONFIG)
def voice(
    run: Run,
    audio: Annotated[
        list[str] | None, typer.Argument(metavar="AUDIO", help="Reference clips, or saved voices.")
    ] = None,
    out: Out = None,
    random: Annotated[
        bool, typer.Option("--random", help="A voice from noise, where the model has such a part.")
    ] = False,
) -> None:
    """Save a voice as conditioning vectors, taken wherever -r is.

    \b
    clvp voice a.wav b.wav -o speaker.npz
    clvp voice --random --seed 7 -o nobody.npz
    """
    from ..io.voices import write_voice

    check_stdin(*(audio or []))
    if random == bool(audio):
        raise UsageError("give reference clips, or --random" if not audio else "--random takes no clips")
    if out is None or not out.endswith(".npz"):
        raise UsageError("a saved voice is an .npz file", "add -o VOICE.npz")
    check_file_output(out, ".npz")
    check_inputs_stay(audio or [], [out])
    clvp = run.clvp()
    vectors = clvp.random_voice() if random else clvp.voice_vectors(audio or [])
    made = {"references": audio or [], "model": clvp.core.name} | ({"seed": run.settings.seed} if random else {})
    write_voice(out, vectors, made)
    record = {"voice": out, "vectors": len(vectors), "width": vectors.shape[1], **made}
    run.deliver([record], ("voice", "vectors", "width", "seed"))
