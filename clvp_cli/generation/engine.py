"""N candidates of each prompt: prefill once, then steps over slots that are refilled as rows finish.

Prefix vectors in, codes out; knows no text, voice or file. Candidate i of a prompt is a function of the weights, the
prefix, the sampling settings, the seed and i: rows share nothing but the prompt's keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import native
from ..config import ClvpDecoderConfig
from ..model.decoder import CodeDecoder
from ..model.packed import attends_natively, cache_dtype, flow_dtype, least_rows, row_dtype
from ..model.products import FEW_ROWS
from ..records import Codes
from ..settings import SamplingSettings
from .cache import BLOCK, FAR_BLOCK, NARROW, ChunkCache, PromptCache, PromptRecorder, RowCache
from .graphs import Replays
from .sampler import NEVER, choose, initial_history, uniforms
from .steps import Sharing, Step, sharing

CACHE_BYTES = 1152 * 2**20  # keys and values of all rows at their longest, where no batch size is given
FEW = 16  # candidates that are run at once whatever they take: what most people ask for
MANY = 256


@dataclass(frozen=True, eq=False)
class Prompt:
    """One text in one voice: its prefix (P, D) and which candidates are wanted of it."""

    prefix: Tensor
    seed: int
    indices: Sequence[int]


@dataclass(frozen=True, eq=False)
class Generated:
    """Codes (T,) of one candidate, without start and stop.

    logprob is the sum of log p under the model's own distribution; a beam's is what the search summed, with the
    repetition penalty if there is one.
    """

    prompt: int
    index: int
    codes: Codes
    stopped: bool
    logprob: float


@dataclass(eq=False)
class _Prefilled:
    cache: PromptCache
    logits: Tensor  # (V,) of the first code


def code_position(count: int | Tensor, options: SamplingSettings) -> int | Tensor:
    """Position of the code number `count` (from 0; the start code stands at 0): 1, 2, 3, … or, skipping, 2, 3, 4, …."""
    return count + (1 if options.code_positions == "trained" else 2)


def longest_possible(decoder: CodeDecoder, options: SamplingSettings) -> int:
    """Codes that fit into the decoder's position table, and into max_codes."""
    last = decoder.config.max_position_embeddings - 1
    return max(1, min(options.max_codes, last - int(code_position(0, options)) + 2))


def least_codes(options: SamplingSettings) -> int:
    """Codes before the stop may come: min_codes, and one at least, but for the profiles that copy their original."""
    return max(options.min_codes, int(options.suppress_start))


def permitted(scores: Tensor, counts: Tensor, config: ClvpDecoderConfig, options: SamplingSettings) -> Tensor:
    """Scores (N, V) with −inf for the start code, and for the stop in rows whose codes so far (N,) are too few."""
    allowed = scores.clone()
    if options.suppress_start:
        allowed[:, config.bos_token_id].fill_(NEVER)
    least = least_codes(options)
    if least:
        allowed[:, config.eos_token_id].masked_fill_(counts < least, NEVER)
    return allowed


def rows_that_fit(decoder: CodeDecoder, options: SamplingSettings, batch_size: int, wanted: int) -> int:
    """How many rows to run at once: what was asked for, or what keeps the caches of many within CACHE_BYTES."""
    if batch_size or wanted <= FEW:
        return min(wanted, batch_size or FEW)
    config, (heads, width, dtype) = decoder.config, _kept(decoder)
    a_code = 2 * config.num_hidden_layers * heads * width * dtype.itemsize
    return min(wanted, MANY, max(FEW_ROWS, int(CACHE_BYTES // (a_code * longest_possible(decoder, options)))))


def _kept(decoder: CodeDecoder) -> tuple[int, int, torch.dtype]:
    """What rows keep of each code: heads, the numbers of a head, and their type."""
    heads, dtype = decoder.config.num_attention_heads, row_dtype(decoder)
    return heads, decoder.config.hidden_size // heads + (native.COUNTS if dtype == torch.int8 else 0), dtype


def row_cache(decoder: CodeDecoder, rows: int, longest: int) -> RowCache:
    """An empty cache for `rows` rows of this decoder, of at most so many codes."""
    (heads, width, dtype), device = _kept(decoder), decoder.final_norm.weight.device
    if attends_natively(decoder):
        return ChunkCache(decoder.config.num_hidden_layers, (rows, heads, longest, width), dtype, BLOCK)
    block = FAR_BLOCK if device.type != "cpu" or width < NARROW else BLOCK
    return RowCache(decoder.config.num_hidden_layers, (rows, heads, longest, width), dtype, device, block)


def prefill(decoder: CodeDecoder, prefix: Tensor) -> _Prefilled:
    """Run a prefix (P, D), which takes no decoder positions, and the start code at position 0."""
    start = torch.tensor([[decoder.config.bos_token_id]], device=prefix.device)
    first = decoder.stack.embed(start, torch.zeros_like(start))
    recorder = PromptRecorder(cache_dtype(decoder))
    embeds = torch.cat((prefix.unsqueeze(0).to(first.dtype), first), dim=1)
    hidden = decoder.stack.hidden(embeds, recorder.attend)
    return _Prefilled(recorder.cache(), decoder.logits(hidden[0, -1:])[0])


def native_choice(
    config: ClvpDecoderConfig, options: SamplingSettings, device: torch.device, limit: int
) -> native.Choice | None:
    """What `permitted` and `choose` do, by our own kernel, if it is there and knows these options."""
    known = 0 < options.top_k <= native.MOST_KEPT and options.typical_p >= 1.0
    if device.type != "cpu" or native.kernels() is None or not known:
        return None
    return native.Choice(
        penalty=options.repetition_penalty,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        start=config.bos_token_id if options.suppress_start else -1,
        stop=config.eos_token_id,
        least=least_codes(options),
        limit=limit,
        position=int(code_position(0, options)),
    )


class Slots:
    """The live rows of a batch, one slot each; dead rows leave by letting the last live row take their slot.

    Every tensor here keeps its place, so that a step can be captured (see graphs).
    """

    def __init__(self, decoder: CodeDecoder, options: SamplingSettings, rows: int) -> None:
        config, device = decoder.config, decoder.final_norm.weight.device
        self.decoder, self.options = decoder, options
        self.limit = longest_possible(decoder, options)
        self.least = least_rows(decoder)
        self.rows = rows
        rows = max(rows, self.least)
        self.cache = row_cache(decoder, rows, self.limit)
        self.said = initial_history(rows, config.vocab_size, config.bos_token_id, options).to(device)
        self.fresh = self.said[0].clone()
        self.codes = torch.zeros(rows, self.limit, dtype=torch.long, device=device)
        self.draws = torch.zeros(rows, self.limit, dtype=torch.float64, device=device)
        self.counts = torch.zeros(rows, dtype=torch.long, device=device)  # codes sampled so far
        self.logprobs = torch.zeros(rows, dtype=torch.float64, device=device)
        self.logits = torch.zeros(rows, config.vocab_size, dtype=flow_dtype(decoder), device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)  # by the code just sampled
        self.last = torch.zeros(rows, 1, dtype=torch.long, device=device)  # the code just sampled,
        self.positions = torch.zeros(rows, 1, dtype=torch.long, device=device)  # and where it stands
        self.choice = None if options.greedy else native_choice(config, options, device, self.limit)
        self.tables = native.Rows(
            draws=self.draws, said=self.said, ended=self.ended, codes=self.codes, counts=self.counts, last=self.last,
            positions=self.positions, log_p=self.logprobs,
        )  # fmt: skip
        self.sampling, self.feeding = Replays(device), Replays(device)
        self.owners: list[tuple[int, int]] = []  # (prompt number, candidate index) of each live row
        self.sharing: Sharing | None = None  # the live rows by prompt; None until the next step needs it

    @property
    def live(self) -> int:
        """Rows that still speak."""
        return len(self.owners)

    def admit(self, prompt: int, index: int, seed: int, first_logits: Tensor) -> None:
        """Give candidate `index` of a prefilled prompt the next free slot."""
        row = self.live
        self.cache.lengths[row] = 0
        self.counts[row] = 0
        self.logprobs[row] = 0.0
        self.said[row] = self.fresh
        self.logits[row] = first_logits
        if not self.options.greedy:
            self.draws[row] = torch.from_numpy(uniforms(seed, index, self.limit)).to(self.draws.device)
        self.owners.append((prompt, index))
        self.sharing = None

    def take_along(self) -> int:
        """How many rows are computed: the live ones, and dead ones that only make up the shape that kernels want."""
        live = self.live
        rows = max(live, self.least)
        if self.feeding.capture:
            rows = min(len(self.counts), 1 << (rows - 1).bit_length())
        if rows > live:  # whatever a dead row says, it says it at a place that there is
            self.counts[live:rows] = self.counts[0]
            self.cache.lengths[live:rows] = self.cache.lengths[0]
        return rows

    def sample(self) -> None:
        """Draw the next code of every live row from `logits`; `ended` then tells the rows that end with it."""
        rows = self.take_along()
        self.sampling.run(rows, lambda: self._sample(rows))

    def _sample(self, n: int) -> None:
        logits = self.logits[:n].float()
        if self.choice is not None and self.sampling.capture is None:
            self.tables.draw(self.choice, logits)
            return
        said, counts, stop = self.said[:n], self.counts[:n], self.decoder.config.eos_token_id
        draws = None if self.options.greedy else self.draws[:n].gather(1, counts.unsqueeze(1)).squeeze(1)
        chosen = choose(permitted(logits, counts, self.decoder.config, self.options), said, draws, self.options)
        self.logprobs[:n] += logits.log_softmax(-1).gather(1, chosen.unsqueeze(1)).squeeze(1)
        self.say(chosen)
        self.ended[:n] = (chosen == stop) | (counts >= self.limit)

    def say(self, codes: Tensor) -> None:
        """Let the first rows say these (n,) next, drawn or not; `step` then feeds them."""
        n, codes, places = len(codes), codes.unsqueeze(1), self.counts[: len(codes)].unsqueeze(1)
        self.codes[:n].scatter_(1, places, codes)
        self.said[:n].scatter_(1, codes, True)
        self.last[:n] = codes
        self.positions[:n] = code_position(places, self.options)
        self.counts[:n] += 1

    def collect(self) -> Iterator[Generated]:
        """Take out the rows that ended, from the last to the first."""
        stop = self.decoder.config.eos_token_id
        for row in reversed(torch.nonzero(self.ended[: self.live]).flatten().tolist()):
            codes = self.codes[row, : int(self.counts[row])].cpu().numpy().astype(np.int64)
            stopped = bool(codes[-1] == stop)
            prompt, index = self.owners[row]
            yield Generated(prompt, index, codes[:-1] if stopped else codes, stopped, float(self.logprobs[row]))
            self._leave(row)

    def _leave(self, row: int) -> None:
        last = self.live - 1
        if row != last:
            self.cache.move(last, row)
            said = self.said, self.codes, self.counts, self.last, self.positions
            for table in (*said, self.draws, self.logprobs, self.logits):
                table[row] = table[last]
            self.owners[row] = self.owners[last]
        self.owners.pop()
        self.sharing = None

    def step(self, prompts: dict[int, _Prefilled]) -> None:
        """Feed the codes just sampled; `logits` then holds those of the next."""
        rows = self.take_along()
        if self.sharing is None:
            numbers = sorted({prompt for prompt, _ in self.owners})
            owners = [numbers.index(prompt) for prompt, _ in self.owners]
            owners += owners[:1] * (rows - self.live)
            of_prompt = torch.tensor(owners, device=self.counts.device)
            caches = [prompts[number].cache for number in numbers]
            self.sharing = sharing(self.decoder, self.cache, caches, of_prompt)
        place = self.cache.make_room(rows)
        if self.feeding.capture and self.sharing.alone:
            again = self.sharing.step
            self.feeding.run(rows, lambda: self._feed(again(rows, None), rows), (self.cache.extent, self.owners[0][0]))
        else:
            self._feed(self.sharing.step(rows, place), rows)

    def _feed(self, step: Step, n: int) -> None:
        self.logits[:n] = step.logits(self.decoder, self.last[:n], self.positions[:n])
        step.done()


Progress = Callable[[int, int], None]  # candidates done, codes sampled since the last call


@torch.inference_mode()
def generate(
    decoder: CodeDecoder,
    prompts: Sequence[Prompt],
    options: SamplingSettings,
    *,
    batch_size: int = 0,
    progress: Progress | None = None,
) -> Iterator[Generated]:
    """Yield every candidate of every prompt as it ends, the slots always full while there is work.

    batch_size bounds the rows held at once (0 chooses by memory) and changes no candidate.
    """
    queue = [(number, index) for number, prompt in enumerate(prompts) for index in prompt.indices]
    slots = Slots(decoder, options, rows_that_fit(decoder, options, batch_size, len(queue)))
    prefilled: dict[int, _Prefilled] = {}
    queue.reverse()
    done = 0
    while queue or slots.live:
        while queue and slots.live < slots.rows:
            number, index = queue.pop()
            if number not in prefilled:
                prefilled = {p: prefilled[p] for p in {p for p, _ in slots.owners}}
                prefilled[number] = prefill(decoder, prompts[number].prefix)
            slots.admit(number, index, prompts[number].seed, prefilled[number].logits)
        sampled = slots.live
        slots.sample()
        for made in slots.collect():
            done += 1
            yield made
        if progress:
            progress(done, sampled)
        if slots.live:
            slots.step(prefilled)
