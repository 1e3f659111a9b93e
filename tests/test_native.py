"""Our own kernels: what they compute, that a row depends on nothing beside it, and that PyTorch's way agrees."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from clvp_cli import native
from clvp_cli.config import ClvpDecoderConfig
from clvp_cli.generation.cache import ChunkCache
from clvp_cli.generation.engine import code_position, native_choice, permitted
from clvp_cli.generation.sampler import choose
from clvp_cli.model.encoder import turns
from clvp_cli.model.rounding import row_steps
from clvp_cli.native import loading, pages
from clvp_cli.settings import SamplingSettings

needs_kernels = pytest.mark.skipif(native.kernels() is None, reason="the kernels are not built, or no AVX2")
SHAPES = [(48, 33), (64, 128), (1024, 50), (1040, 7), (8192, 3)]  # in, out: steps that remain, outputs that remain


def product(x, weight, scale, bias, residual=None, **more):
    """One product with what is made for many."""
    return native.Weight(weight, scale, bias)(x, residual, **more)


def drawn(inputs, outputs, rows, seed=0):
    """x, whole weights, their scales, a bias and a residual."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, inputs, generator=draw)
    x[1::3, 0] = 90.0  # as far above the others as trained decoders have it,
    x[2::6, 0] = 18.0  # or less so,
    x[5::6, ::24] = 25.0  # or many are
    weight = torch.randint(-127, 128, (outputs, inputs), generator=draw, dtype=torch.int8)
    scale = torch.rand(outputs, generator=draw) / 100
    return x, weight, scale, torch.randn(outputs, generator=draw), torch.randn(rows, outputs, generator=draw)


@needs_kernels
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 16, 21])
def test_a_product_is_that_of_the_rounded_rows(inputs, outputs, rows):
    """Rows as whole numbers, exact sums, then scales, bias and residual in float32."""
    x, weight, scale, bias, residual = drawn(inputs, outputs, rows)
    step = row_steps(x)
    want = (x * (1 / step)).round().double() @ weight.double().t() * scale.double() * step.double()
    for plus, after in ((None, None), (bias, None), (None, residual), (bias, residual)):
        got = product(x, weight, scale, plus, after)
        expected = want + sum(part.double() for part in (plus, after) if part is not None)
        torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-6 * float(want.abs().max()))


@pytest.mark.parametrize("inputs", [48, 64, 1024, 1040, 8192])
def test_what_a_whole_number_counts(inputs):
    """The largest is 127; or twelve times the mean is, few being above; or the largest is 8192: it or many are far."""
    x, *_ = drawn(inputs, 1, 24)
    largest, mean, step = x.abs().amax(-1), x.abs().mean(-1), row_steps(x).squeeze(-1)
    even, peaked, clipped, many = (step[rest::6] for rest in (0, 1, 2, 5))
    assert torch.equal(even, largest[::6] / 127)
    assert torch.equal(peaked, largest[1::6] / 8192)
    torch.testing.assert_close(clipped, mean[2::6] * 12 / 127, rtol=0.05, atol=0)
    assert torch.equal(many, largest[5::6] / 8192)


@needs_kernels
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_a_row_has_the_same_bits_among_any_rows_and_threads(inputs, outputs):
    """Whatever their number, and however the work is shared out."""
    x, weight, scale, bias, residual = drawn(inputs, outputs, 19)
    whole = product(x, weight, scale, bias, residual)
    for rows in range(1, 19):
        assert torch.equal(product(x[:rows], weight, scale, bias, residual[:rows]), whole[:rows])
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(product(x, weight, scale, bias, residual), whole)
    finally:
        torch.set_num_threads(threads)


@needs_kernels
@pytest.mark.parametrize("dtype", native.FLOATS)
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 33), (200, 128), (1024, 50), (9000, 8)])
def test_weights_in_floats(inputs, outputs, dtype):
    """Within float32's rounding of float64, and a row's bits are its own, an output that remains included."""
    x, _, _, bias, residual = drawn(inputs, outputs, 23)
    weight = (torch.randn(outputs, inputs) / inputs**0.5).to(dtype)
    whole = product(x, weight, None, bias, residual)
    want = x.double() @ weight.double().t() + bias.double() + residual.double()
    torch.testing.assert_close(whole.double(), want, rtol=1e-5, atol=3e-6 * float(want.abs().max()))
    for rows in range(1, 23):
        assert torch.equal(product(x[:rows], weight, None, bias, residual[:rows]), whole[:rows])


@needs_kernels
@pytest.mark.parametrize(("inputs", "outputs"), [(32, 33), (224, 128), (1024, 50), (9024, 8)])
def test_weights_in_bfloat16(inputs, outputs):
    """Within float32's rounding of float64, of rows in bfloat16; a row's bits are its own, or no number."""
    x, _, _, bias, residual = drawn(inputs, outputs, 23)
    x[3, 1] = float("nan")
    weight = (torch.randn(outputs, inputs) / inputs**0.5).bfloat16()
    whole = product(x, weight, None, bias, residual)
    want = x.bfloat16().double() @ weight.double().t() + bias.double() + residual.double()
    largest = float(want.nan_to_num().abs().max())
    torch.testing.assert_close(whole.double(), want, rtol=1e-5, atol=3e-6 * largest, equal_nan=True)
    for rows in range(1, 23):
        torch.testing.assert_close(
            product(x[:rows], weight, None, bias, residual[:rows]), whole[:rows], rtol=0, atol=0, equal_nan=True
        )


@needs_kernels
def test_rows_are_rounded_to_bfloat16_as_torch_does():
    """To the nearest, ties to even, from the least normal number to the largest, past which is infinity."""
    some = (1 + torch.rand(4096)) * torch.logspace(-37, 38, 4096) * torch.tensor([1, -1]).repeat(2048)
    rest = torch.tensor([0.0, -0.0, 1.00390625, 1.01171875, 3.4e38, -3.4e38, float("inf"), float("nan")])
    x = torch.cat((some, rest))
    rows = torch.where(torch.arange(32) == 7, x.unsqueeze(1), 0.0)
    got = product(rows, torch.eye(32).bfloat16()[7:8], None, None)
    torch.testing.assert_close(got[:, 0], x.bfloat16().float(), rtol=0, atol=0, equal_nan=True)


class Told:
    """A build whose processor, it says, could run the wider one."""

    def __init__(self, library):
        self.clvp_product, self.clvp_block, self.clvp_lay = library.clvp_product, library.clvp_block, library.clvp_lay
        self.clvp_can_be_wider = lambda: True


@needs_kernels
@pytest.mark.parametrize("right", [True, False])
def test_bfloat16_is_multiplied_where_that_is_right(right, monkeypatch, caplog):
    """The kernels are tried once on a processor with AVX512-BF16; others have another way."""
    built = native.kernels()
    told = Told(built)
    told.clvp_has_brains = lambda: False
    monkeypatch.setattr(loading, "kernels", lambda: told)
    assert not loading.has_brains.__wrapped__()
    told.clvp_has_brains = lambda: True
    told.clvp_product = built.clvp_product if right else lambda *given: 0
    assert loading.has_brains.__wrapped__() == right and ("compute something else" in caplog.text) != right


@needs_kernels
@pytest.mark.parametrize("rows", [1, 5])
def test_gelu_is_torchs(rows):
    """By tanh, within float32's rounding, from where it is nothing to where it is the identity."""
    x, weight, scale, bias, _ = drawn(64, 24, rows)
    plain = product(x, weight, scale, bias)
    got = product(x, weight, scale, bias, gelu=True)
    torch.testing.assert_close(got, F.gelu(plain, approximate="tanh"), rtol=1e-6, atol=1e-6)
    one, zeros = torch.eye(64).half(), torch.zeros(64)
    places = torch.cat((torch.linspace(-12, 12, 60), torch.tensor([-1e30, -100.0, 1e30, float("nan")])))
    got = product(torch.diag(places), one, None, zeros, gelu=True).diagonal()
    want = F.gelu(places.clamp(-65504, 65504), approximate="tanh")
    torch.testing.assert_close(got[:62], want[:62], rtol=2e-6, atol=1e-6)
    assert got[62] == 1e30 and got[63].isnan()


@needs_kernels
def test_rows_of_zeros_and_of_no_numbers_stay_their_own():
    """A row of zeros is the bias; what is no number spoils its own row alone; the largest sums do not overflow."""
    x, weight, scale, bias, _ = drawn(64, 10, 4)
    want = product(x, weight, scale, bias)
    for none in (float("nan"), float("inf")):
        x[1], x[2, 5] = 0.0, none
        got = product(x, weight, scale, bias)
        assert torch.equal(got[[0, 3]], want[[0, 3]]) and torch.equal(got[1], bias) and got[2].isnan().all()
    full = torch.full((2, 8192), 127, dtype=torch.int8)
    for value in (1.0, -1.0):
        for rows in (1, 3):
            got = product(torch.full((rows, 8192), value), full, torch.ones(2), None)
            torch.testing.assert_close(got, torch.full((rows, 2), value * 127 * 8192))


@needs_kernels
def test_views_and_shapes_are_taken_as_they_are():
    """Leading dimensions stay, and what is not contiguous is made so."""
    x, weight, scale, bias, _ = drawn(64, 12, 6)
    wide = torch.stack((x, x), dim=-1)[..., 0]
    assert not wide.is_contiguous()
    got = product(wide.view(2, 3, 64), weight, scale, bias)
    assert torch.equal(got, product(x, weight, scale, bias).view(2, 3, 12))


def whole(x):
    """Whole numbers of 8 bits, and what one of them counts (…, 1), of each vector (…, d)."""
    step = x.abs().amax(-1, keepdim=True) / 127
    return (x * (1 / step)).round().to(torch.int8), step


def chunked(x, dtype):
    """Keys and values (2, rows, H, L, d) as rows keep them: (2, rows, H, chunks, …)."""
    chunks = x.unflatten(3, (-1, native.ABREAST))
    if dtype != torch.int8:
        return chunks.to(dtype, copy=True).flatten(4)
    numbers, step = whole(chunks)
    keys = numbers[0].unflatten(-1, (-1, 2)).transpose(-2, -3)  # pairs of inputs
    values = numbers[1].unflatten(-2, (-1, 2)).transpose(-1, -2)  # pairs of positions
    counts = step.flatten(4).contiguous().view(torch.int8)
    return torch.cat((torch.stack((keys.flatten(3), values.flatten(3))), counts), -1)


def held(x, dtype):
    """What a cache makes of keys or values (…, d), in float64."""
    if dtype != torch.int8:
        return x.to(dtype).double()
    numbers, step = whole(x)
    return numbers.double() * step


def caches(rows, heads, width, room, lengths, dtype=torch.float16, prompts=(13, 40)):
    """Queries, keys and values of a step; keys and values from before, lengths; prompts, as drawn and laid."""
    draw = torch.Generator().manual_seed(rows)
    qkv = torch.randn(rows, 3, heads, width, generator=draw)
    before = torch.randn(2, rows + 1, heads, room, width, generator=draw)
    shared = torch.float16 if dtype == torch.int8 else dtype
    table = [
        tuple(torch.randn(heads, length + 3, width, generator=draw).to(shared) for _ in range(2)) for length in prompts
    ]
    laid = [native.Prompt(*each, length) for each, length in zip(table, prompts, strict=True)]
    return qkv, before, torch.tensor(lengths), table, laid


def in_16_bits(x, most=32767.0):
    """The nearest that whole numbers to `most` are, of the largest of each (…, d), in float64."""
    step = x.abs().amax(-1, keepdim=True) / most
    return (x * (1 / step)).round().double() * step


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.int8, *native.FLOATS])
@pytest.mark.parametrize(("heads", "width"), [(16, 64), (6, 32), (3, 40), (2, 128), (1, 8)])
@pytest.mark.parametrize("lengths", [[0], [69, 0, 31], [5, 5, 5, 5, 64], [15, 16, 17] * 4, [700, 511, 3]])
def test_a_step_attends_to_prompt_and_row(heads, width, lengths, dtype):
    """One softmax over both, to float64's value; new keys and values lie where they belong, and nothing else moved."""
    rows, room = len(lengths), 80 if max(lengths) < 80 else 704
    qkv, kept, counts, prompts, laid = caches(rows, heads, width, room, lengths, dtype)
    of_row = torch.arange(rows) % 2
    cache = chunked(kept, dtype)
    got = native.Attention(cache, laid, of_row)(qkv, counts)
    for row, length in enumerate(lengths):
        kept[:, row, :, length] = qkv[row, 1:]
        size = (13, 40)[of_row[row]]
        (keys, values), own = prompts[of_row[row]], kept[:, row, :, : length + 1]
        q = qkv[row, 0].double()
        asking = in_16_bits(qkv[row, 0]) if dtype == torch.int8 else q  # what rows keep
        logits = (
            torch.einsum("hd,htd->ht", *of) for of in ((q, keys[:, :size].double()), (asking, held(own[0], dtype)))
        )
        weights = torch.cat(tuple(logits), 1).softmax(-1)
        of_own = held(own[1], dtype)
        if dtype == torch.int8:  # weights are rounded, each times what its value's whole numbers count
            numbers, step = whole(own[1])
            rounded = in_16_bits(weights[:, size:] * step[..., 0].double(), 32767 / (1 + (length + 1) // 512))
            mixed = torch.einsum("ht,htd->hd", rounded, numbers.double())
        else:
            mixed = torch.einsum("ht,htd->hd", weights[:, size:], of_own)
        want = mixed + torch.einsum("ht,htd->hd", weights[:, :size], values[:, :size].double())
        near = 3e-4 if dtype == torch.int8 and room > 80 else 1e-5  # of so many weights, some round to either side
        torch.testing.assert_close(got[row].double(), want, rtol=1e-5, atol=near)
        if dtype == torch.int8:  # which is as near as 16 bits are to what it stands for
            keys = torch.cat((keys[:, :size].double(), held(own[0], dtype)), 1)
            exact = torch.einsum("hd,htd->ht", q, keys).softmax(-1)
            both = torch.cat((values[:, :size].double(), of_own), 1)
            torch.testing.assert_close(got[row].double(), torch.einsum("ht,htd->hd", exact, both), rtol=0, atol=2e-3)
    assert torch.equal(cache, chunked(kept, dtype))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16])
def test_a_row_attends_alike_among_any_rows(dtype):
    """Bit for bit, whatever the other rows' lengths and prompts are, and whether they are numbers."""
    lengths, of_row = [3, 49, 0, 17, 17] * 4, torch.tensor([0, 1, 1, 0, 1] * 3 + [1] * 5)
    qkv, kept, counts, _, laid = caches(20, 4, 64, 64, lengths, dtype)
    cache = chunked(kept, dtype)
    together = native.Attention(cache.clone(), laid, of_row)(qkv, counts)
    for row in range(20):
        one = slice(row, row + 1)
        alone = native.Attention(cache[:, one].clone(), laid, of_row[one])(qkv[one], counts[one])
        assert torch.equal(alone[0], together[row])
    for few in (1, 7):
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(few)
            assert torch.equal(native.Attention(cache.clone(), laid, of_row)(qkv, counts), together)
        finally:
            torch.set_num_threads(threads)
    qkv[2, :, 1, 7] = float("nan")
    got, others = native.Attention(cache.clone(), laid, of_row)(qkv, counts), torch.arange(20) != 2
    assert got[2, 1].isnan().all() and torch.equal(got[others], together[others])


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16])
def test_what_nothing_was_written_to_is_not_read(dtype):
    """Wherever a cache lies, with whatever in it: rows' own places are all that count."""
    qkv, kept, counts, _, laid = caches(5, 4, 64, 64, [3, 40, 0, 16, 15], dtype)
    of_row = torch.tensor([0, 1, 1, 0, 1])
    want = native.Attention(chunked(kept, dtype), laid, of_row)(qkv, counts)
    spoilt = ChunkCache(1, (6, 4, 60, 64 + (native.COUNTS if dtype == torch.int8 else 0)), dtype, 32).layers[0]
    spoilt.copy_(torch.full_like(spoilt, -1) if dtype == torch.int8 else torch.full_like(spoilt, float("nan")))
    for row, length in enumerate(counts):
        for place in range(-(-int(length) // native.ABREAST)):
            spoilt[:, row, :, place] = chunked(kept, dtype)[:, row, :, place]
    assert torch.equal(native.Attention(spoilt, laid, of_row)(qkv, counts), want)


@needs_kernels
def test_long_prompts_lie_in_parts():
    """A prompt of more positions than a weight's part has inputs, in one softmax with a row's own."""
    qkv, kept, counts, prompts, laid = caches(2, 2, 40, 16, [3, 0], torch.float32, (1500, 1024))
    got = native.Attention(chunked(kept, torch.float32), laid, torch.tensor([0, 1]))(qkv, counts)
    for row, size in enumerate((1500, 1024)):
        kept[:, row, :, counts[row]] = qkv[row, 1:]
        keys, values = (
            torch.cat((shared[:, :size], own), 1).double()
            for shared, own in zip(prompts[row], kept[:, row, :, : counts[row] + 1], strict=True)
        )
        weights = torch.einsum("hd,htd->ht", qkv[row, 0].double(), keys).softmax(-1)
        torch.testing.assert_close(got[row].double(), torch.einsum("ht,htd->hd", weights, values), rtol=1e-5, atol=1e-5)


CHOICES = [
    SamplingSettings(),
    SamplingSettings(top_k=1),
    SamplingSettings(top_p=1.0, repetition_penalty=0.7),
    SamplingSettings(top_k=256, temperature=2.0, repetition_penalty=1.0),
    SamplingSettings(top_k=200, top_p=0.3, min_codes=5, suppress_start=False),
]


@needs_kernels
@pytest.mark.parametrize("options", CHOICES)
@pytest.mark.parametrize("codes", [300, 8194])
def test_codes_are_drawn_as_the_sampler_draws_them(options, codes):
    """The same code for each draw, and log p within float32's rounding, whatever rows are beside it."""
    config = ClvpDecoderConfig(vocab_size=codes, bos_token_id=codes - 2, eos_token_id=codes - 1)
    draw = torch.Generator().manual_seed(codes)
    logits = 3 * torch.randn(64, codes, generator=draw)
    logits[:9, codes - 1] = logits[9:20, codes - 2] = 30.0
    said, counts = torch.rand(64, codes, generator=draw) < 0.01, torch.randint(0, 9, (64,), generator=draw)
    draws, limit = torch.rand(64, 9, generator=draw, dtype=torch.float64), 9
    choice = native_choice(config, options, logits.device, limit)

    def drawn(rows, logits):
        zeros = torch.zeros(len(logits), dtype=torch.long)
        own = {"draws": draws, "said": said, "ended": zeros.bool(), "codes": torch.zeros(len(logits), limit).long()}
        own |= {
            "counts": counts,
            "last": zeros.unsqueeze(1),
            "positions": zeros.unsqueeze(1),
            "log_p": zeros.double() - 2,
        }
        tables = {name: (table[rows] if len(table) > len(zeros) else table).clone() for name, table in own.items()}
        native.Rows(**tables).draw(choice, logits)
        return tables

    got = drawn(slice(None), logits)
    chosen, at = got["last"][:, 0], counts.unsqueeze(1)
    want = choose(permitted(logits, counts, config, options), said, draws.gather(1, at)[:, 0], options)
    assert torch.equal(chosen, want) and torch.equal(got["codes"].gather(1, at)[:, 0], chosen)
    assert torch.equal(got["said"], said.scatter(1, chosen.unsqueeze(1), True))
    assert torch.equal(got["counts"], counts + 1)
    assert torch.equal(got["positions"][:, 0], code_position(counts, options))
    assert torch.equal(got["ended"], (chosen == codes - 1) | (counts + 1 == limit))
    log_p = logits.double().log_softmax(-1).gather(1, chosen.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(got["log_p"], log_p - 2, rtol=0, atol=1e-5)
    for row in range(0, 64, 7):
        one = slice(row, row + 1)
        assert all(torch.equal(alone, got[name][one]) for name, alone in drawn(one, logits[one]).items())
    logits[3] = float("nan")
    spoilt = drawn(slice(None), logits)["last"][:, 0]
    assert 0 <= int(spoilt[3]) < codes and torch.equal(spoilt[4:], chosen[4:])


@needs_kernels
def test_what_the_kernel_does_not_draw():
    """Other options are the sampler's own."""
    config, near = ClvpDecoderConfig(), torch.device("cpu")
    assert native_choice(config, SamplingSettings(), torch.device("cuda"), 9) is None
    for options in (SamplingSettings(top_k=0), SamplingSettings(top_k=257), SamplingSettings(typical_p=0.9)):
        assert native_choice(config, options, near, 9) is None


def in_type(full, dtype):
    """A weight in floats, or as whole numbers and their scales."""
    if dtype != torch.int8:
        return full.to(dtype), None
    scale = full.abs().amax(1) / 127
    return (full / scale[:, None]).round().to(dtype), scale


def layer_parts(heads, width, inner, dtype):
    """Norms and weights of a layer, in 8 bits or in floats."""
    draw = torch.Generator().manual_seed(width)
    size = heads * width
    norms = [torch.nn.LayerNorm(size, eps=1e-5) for _ in range(2)]
    for norm in norms:
        norm.weight.data = torch.randn(size, generator=draw)
        norm.bias.data = torch.randn(size, generator=draw)
    weights = []
    for outputs, inputs in ((3 * size, size), (size, size), (inner, size), (size, inner)):
        kept, scale = in_type(torch.randn(outputs, inputs, generator=draw) / inputs**0.5, dtype)
        weights.append(native.Weight(kept, scale, torch.randn(outputs, generator=draw)))
    return norms, weights


def decoder_of(norms, weights, heads, layers):
    """So many layers alike, between tables of 11 codes and 90 positions and a head; and what stands around them."""
    draw, size = torch.Generator().manual_seed(5), weights[1].outputs
    tables = torch.randn(11, size, generator=draw), torch.randn(90, size, generator=draw)
    around = [torch.nn.LayerNorm(size) for _ in range(2)]
    for norm in around:
        norm.weight.data = torch.randn(size, generator=draw)
        norm.bias.data = torch.randn(size, generator=draw)
    head = native.Weight(torch.randn(11, size, generator=draw) / size**0.5, None, torch.randn(11, generator=draw))
    return native.Decoder(tables, [native.Layer(norms, weights, heads)] * layers, around, head), tables, around, head


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.int8, *native.FLOATS])
@pytest.mark.parametrize(("heads", "width", "inner"), [(2, 64, 512), (3, 32, 112), (2, 40, 80)])
def test_a_step_is_its_parts(heads, width, inner, dtype):
    """What tables, norms, products and attention give one after another; a row's bits are its own among any."""
    norms, weights = layer_parts(heads, width, inner, dtype)
    qkv, out, fc, proj = weights
    lengths = [7, 0, 31, 31, 2, 64, 9]
    _, kept, counts, _, laid = caches(len(lengths), heads, width, 80, lengths, dtype)
    of_row, layers = torch.arange(len(lengths)) % 2, 1 if dtype == torch.int8 else 2
    first = [chunked(kept, dtype) for _ in range(layers)]
    codes, positions = torch.tensor([[3], [10], [0], [0], [4], [7], [7]]), (counts + 3).unsqueeze(1)
    decoder, tables, around, head = decoder_of(norms, weights, heads, layers)

    def among(start, end):
        own, some = [cache[:, start:end].clone() for cache in first], slice(start, end)
        places = native.Places([native.Attention(cache, laid, of_row[some]) for cache in own])
        return decoder(codes[some], positions[some], places, counts[some]), torch.stack(own)

    together, written = among(0, len(lengths))
    x = tables[0][codes] + tables[1][positions]
    for cache in first:
        attention = native.Attention(cache, laid, of_row)
        x = out(attention(qkv(norms[0](x)).view(len(x), 3, heads, width), counts).view_as(x), x)
        x = proj(fc(norms[1](x), gelu=True), x)
    want = head(around[1](around[0](x)))[:, 0]
    near = 2e-3 if dtype == torch.int8 else 2e-5  # a norm's last bit may be another, and so what is rounded after it
    torch.testing.assert_close(together, want, rtol=near, atol=near)
    for own, cache in zip(written, first, strict=True):
        numbers = slice(width * native.ABREAST)  # without what they count
        differing = own[..., numbers].float() - cache[:, : len(lengths), ..., numbers].float()
        assert float(differing.abs().max()) <= (1 if dtype == torch.int8 else 2e-3)  # a level
    for row in range(len(lengths)):
        alone, its = among(row, row + 1)
        assert torch.equal(alone[0], together[row]) and torch.equal(its[:, :, 0], written[:, :, row])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(among(0, len(lengths))[0], together)
    finally:
        torch.set_num_threads(threads)


@needs_kernels
def test_no_code_without_a_vector():
    """What no table has is refused before it is read."""
    norms, weights = layer_parts(2, 64, 128, torch.int8)
    _, kept, counts, _, laid = caches(1, 2, 64, 16, [0], torch.int8)
    places = native.Places([native.Attention(chunked(kept, torch.int8), laid, torch.tensor([0]))])
    decoder, *_ = decoder_of(norms, weights, 2, 1)
    for code, position in ((11, 0), (-1, 0), (0, 90), (0, -1)):
        with pytest.raises(IndexError, match="position"):
            decoder(torch.tensor([[code]]), torch.tensor([[position]]), places, counts[:1])


def encoder_parts(heads, width, inner, dtype, clamps=False):
    """Norms and weights of an encoder's layer, in 8 bits or in floats."""
    draw = torch.Generator().manual_seed(width)
    size = heads * width
    norms = [native.RmsNorm(torch.randn(size, generator=draw), 1e-5, clamps=clamps) for _ in range(2)]
    _, weights = layer_parts(heads, width, inner, dtype)
    kept, scale = in_type(torch.randn(2 * inner, size, generator=draw) / size**0.5, dtype)
    return norms, [*weights[:2], native.Weight(kept, scale, None), weights[3]]


def turned(x, angles):
    """x (S, H, d): numbers i and i + k of each head turn by angles (S, k)."""
    half = angles.shape[1]
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), -1)


LENGTHS = [5, 1, 40, 16, 7, 1050]  # blocks that are full and not, more positions than a weight's part has inputs


@needs_kernels
@pytest.mark.parametrize("half", [0, 4, 16])
@pytest.mark.parametrize(("heads", "width"), [(2, 64), (3, 40), (1, 128)])
def test_a_sequence_attends_to_all_of_itself(heads, width, half):
    """What float64 gives, within float32's rounding; whatever is beside it, it finds the same bits."""
    draw = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(LENGTHS), 3, heads, width, generator=draw) / 3
    angles = torch.rand(max(LENGTHS), half, generator=draw) * 7
    found = native.Sequences(LENGTHS, *turns(angles)).attend(qkv)
    start = 0
    for length in LENGTHS:
        own = qkv[start : start + length]
        q, k, v = (turned(part, angles[:length].double()).transpose(0, 1) for part in own.double().unbind(1))
        want = (q @ k.transpose(1, 2)).softmax(-1) @ v
        torch.testing.assert_close(found[start : start + length].double(), want.transpose(0, 1), rtol=1e-4, atol=3e-6)
        assert torch.equal(native.Sequences([length], *turns(angles)).attend(own), found[start : start + length])
        start += length


@needs_kernels
@pytest.mark.parametrize(("heads", "width"), [(2, 64), (1, 128), (3, 40)])
def test_keys_and_queries_in_8_bits(heads, width):
    """What float64 gives with keys and queries that are rounded, where heads are whole STEPs; else as they are."""
    draw = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(LENGTHS), 3, heads, width, generator=draw)
    qkv[:, 0] /= 3
    qkv[5, 1] = 0.0
    nothing = torch.empty(max(LENGTHS), 0)
    found = native.Sequences(LENGTHS, nothing, nothing).attend(qkv, whole=True)
    rounds, start = width % native.STEP == 0, 0
    for length in LENGTHS:
        q, k, v = (part.transpose(0, 1) for part in qkv[start : start + length].unbind(1))
        if rounds:
            q, k = (step * (part * (1 / step)).round() for part in (q, k) for step in (largest(part),))
        want = (q.double() @ k.double().transpose(1, 2)).softmax(-1) @ v.double()
        torch.testing.assert_close(found[start : start + length].double(), want.transpose(0, 1), rtol=1e-4, atol=1e-5)
        start += length


def largest(x):
    """What a whole number counts where the largest of each row is 127."""
    return x.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127


@needs_kernels
@pytest.mark.parametrize("clamps", [False, True])
def test_norms_and_gates_are_torchs(clamps):
    """By the root of the mean square, of zeros too; and GELU by erf, from where it is nothing to where it is all."""
    x = torch.randn(7, 3, 40, generator=torch.Generator().manual_seed(0))
    x[2] = 0.0
    weight, square = torch.linspace(-2, 2, 40), x.square().mean(-1, keepdim=True)
    root = square.sqrt().clamp(min=1e-8) if clamps else (square + 1e-5).sqrt()
    got = native.RmsNorm(weight, 1e-8 if clamps else 1e-5, clamps=clamps)(x)
    torch.testing.assert_close(got, x / root * weight, rtol=1e-6, atol=1e-7)
    places = torch.cat((torch.linspace(-12, 12, 116), torch.tensor([-1e30, -100.0, 1e30, float("nan")]))).view(5, 24)
    both = torch.cat((torch.full((5, 24), 2.0), places), -1)
    want = 2 * F.gelu(places.double()).float()
    torch.testing.assert_close(native.gated(both), want, rtol=1e-6, atol=2e-6, equal_nan=True)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.int8, *native.FLOATS])
@pytest.mark.parametrize(("heads", "width", "inner"), [(2, 64, 512), (3, 40, 80)])
def test_an_encoders_layer_is_its_parts(heads, width, inner, dtype):
    """What norms, products, attention and gates give one after another, and layers one after another."""
    norms, weights = encoder_parts(heads, width, inner, dtype)
    qkv, out, fc1, fc2 = weights
    draw = torch.Generator().manual_seed(1)
    x, angles = torch.randn(sum(LENGTHS), heads * width, generator=draw), torch.rand(max(LENGTHS), 8, generator=draw)
    sequences, layer = native.Sequences(LENGTHS, *turns(angles)), native.EncoderLayer(norms, weights, heads)
    parts = qkv(norms[0](x)).view(len(x), 3, heads, width)
    mixed = sequences.attend(parts, whole=dtype == torch.int8).view_as(x)
    middle = out(mixed, x)
    want = fc2(native.gated(fc1(norms[1](middle))), middle)
    one = native.EncoderStack([layer])(x, sequences)
    torch.testing.assert_close(one, want, rtol=1e-6, atol=1e-6)
    assert torch.equal(native.EncoderStack([layer] * 2)(x, sequences), native.EncoderStack([layer])(one, sequences))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16])
def test_a_sequence_is_encoded_alike_among_any_others(dtype):
    """To the bit, by any number of threads; what is no number spoils its own sequence alone."""
    norms, weights = encoder_parts(2, 64, 512, dtype, clamps=True)
    draw = torch.Generator().manual_seed(1)
    x, angles = torch.randn(sum(LENGTHS), 128, generator=draw), torch.rand(max(LENGTHS), 8, generator=draw)
    stack = native.EncoderStack([native.EncoderLayer(norms, weights, 2)] * 2)
    together = stack(x, native.Sequences(LENGTHS, *turns(angles)))
    parts = list(zip(x.split(LENGTHS), together.split(LENGTHS), strict=True))
    for own, among in parts:
        assert torch.equal(stack(own, native.Sequences([len(own)], *turns(angles))), among)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(stack(x, native.Sequences(LENGTHS, *turns(angles))), together)
    finally:
        torch.set_num_threads(threads)
    x[7, 3] = float("nan")  # in the third
    spoilt = stack(x, native.Sequences(LENGTHS, *turns(angles))).split(LENGTHS)
    for place, (_, among) in enumerate(parts):
        assert spoilt[place].isnan().all() if place == 2 else torch.equal(spoilt[place], among)


def encoded(width, dtype):
    """What an encoder's layer makes of some sequences."""
    draw = torch.Generator().manual_seed(1)
    x, angles = torch.randn(sum(LENGTHS), 3 * width, generator=draw), torch.rand(max(LENGTHS), 8, generator=draw)
    norms, weights = encoder_parts(3, width, 80, dtype)
    return native.EncoderStack([native.EncoderLayer(norms, weights, 3)])(x, native.Sequences(LENGTHS, *turns(angles)))


def stepped(width, dtype):
    """What a decoder's step makes of some codes, and what it keeps."""
    norms, weights = layer_parts(3, width, 112, dtype)
    lengths = [7, 0, 31, 31, 2, 64, 9, 15, 16, 17, 40]
    _, kept, counts, _, laid = caches(len(lengths), 3, width, 80, lengths, dtype)
    cache = chunked(kept, dtype)
    places = native.Places([native.Attention(cache, laid, torch.arange(len(lengths)) % 2)])
    decoder, *_ = decoder_of(norms, weights, 3, 1)
    made = decoder(torch.arange(len(lengths)).unsqueeze(1), counts.unsqueeze(1), places, counts)
    return torch.cat((made.flatten(), cache.float().flatten().nan_to_num()))


@pytest.mark.skipif(not native.is_wide(), reason="no AVX512-VNNI, or no kernels for it")
@pytest.mark.parametrize("dtype", [torch.int8, *native.FLOATS])
@pytest.mark.parametrize("width", [40, 48])
@pytest.mark.parametrize("what", [encoded, stepped])
def test_wider_kernels_compute_the_same_bits(what, dtype, width):
    """In a process of their own, the others do."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); import torch; from test_native import *; assert not native.is_wide();"
        f"sys.stdout.buffer.write({what.__name__}({width}, {dtype}).numpy().tobytes())"
    )
    env = {**os.environ, "CLVP_NATIVE": "avx2"}
    other = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, cwd=Path(__file__).parents[1])
    assert other.stdout == what(width, dtype).numpy().tobytes(), other.stderr


def test_tensors_of_a_slab_have_their_own_memory():
    """Each begins a line, none reaches into another, and one too large for a slab has its own mapping."""
    sizes = (1, 64, 1000, pages.SLAB // 2 + 1, 3, pages.PAGE)
    tensors = [pages.room(size, torch.uint8) for size in sizes]
    for number, tensor in enumerate(tensors):
        tensor.fill_(number)
    for number, tensor in enumerate(tensors):
        assert tensor.data_ptr() % pages.LINE == 0 and len(tensor) == sizes[number]
        assert bool((tensor == number).all())


@needs_kernels
def test_what_the_kernels_do_not_take():
    """Other widths and numbers of inputs are refused, so that PyTorch's way is taken."""
    assert native.multiplies(torch.int8, 48) and native.attends(64)
    assert native.multiplies(torch.int8, 8208) and not native.multiplies(torch.int8, 40)
    assert native.multiplies(torch.float32, 40) and not native.multiplies(torch.float16, 36)
    assert not native.multiplies(torch.bfloat16, 48)
    assert not native.attends(36) and not native.attends(136)
    assert native.takes(40, 64) == (not native.is_outdone()) and not native.takes(40, 36)


def test_they_can_be_left_out():
    """CLVP_NATIVE=0 is PyTorch's way."""
    code = "from clvp_cli import native; print(native.kernels())"
    made = subprocess.run([sys.executable, "-c", code], env={"CLVP_NATIVE": "0"}, capture_output=True, text=True)
    assert made.stdout.strip() == "None", made.stderr


@needs_kernels
@pytest.mark.parametrize("asked", ["", "avx2"])
@pytest.mark.parametrize("agrees", [True, False, None])
def test_wider_kernels_run_where_they_make_the_same_bits(agrees, asked, monkeypatch, caplog):
    """Not on other processors, not if they are not there or compute something else, nor if they are not wanted."""
    narrow = Told(native.kernels())
    wide = None if agrees is None else Told(native.kernels())
    if agrees is False:
        wide.clvp_product = lambda *given: 0  # what nobody writes stays zeros
    monkeypatch.setattr(loading, "_loaded", {"kernels.so": narrow, "kernels_vnni.so": wide}.get)
    monkeypatch.setenv("CLVP_NATIVE", asked)
    assert loading.kernels.__wrapped__() is (wide if agrees and not asked else narrow)
    assert ("compute something else" in caplog.text) == (agrees is False and not asked)
    narrow.clvp_can_be_wider = lambda: False
    assert loading.kernels.__wrapped__() is narrow


@pytest.mark.skipif(not native.is_wide(), reason="no AVX512-VNNI, or no kernels for it")
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_wider_kernels_make_the_same_bits(inputs, outputs):
    """Whatever is left over, in 8 bits and in floats."""
    narrow = loading._loaded("kernels.so")
    for bits in (8, 16, 32):
        for rows in (1, 2, 5, 6, 16, 21):
            x, weight, scale, bias, residual = drawn(inputs, outputs, rows)
            weight = weight if bits == 8 else (weight / 127).to(torch.float16 if bits == 16 else torch.float32)
            parts = weight, scale if bits == 8 else None, bias
            form, made = loading.described(narrow, *parts), torch.empty(rows, outputs)
            given = ctypes.addressof(form), x.data_ptr(), rows, residual.data_ptr(), made.data_ptr()
            assert narrow.clvp_product(*given, outputs % 8 == 0, 1) == 0
            assert torch.equal(native.Weight(*parts)(x, residual, gelu=outputs % 8 == 0), made)


@needs_kernels
def test_what_cannot_be_loaded_is_left_out(tmp_path, monkeypatch, caplog):
    """A library that is none is PyTorch's way, with a warning."""
    monkeypatch.setattr(loading, "HERE", tmp_path)
    assert loading.kernels.__wrapped__() is None and not caplog.text
    tmp_path.joinpath("kernels.so").write_bytes(b"no library")
    assert loading.kernels.__wrapped__() is None and "kernels could not be loaded" in caplog.text


@needs_kernels
def test_what_was_built_from_other_sources_is_left_out(tmp_path, monkeypatch, caplog):
    """A library that is called otherwise, or tells nothing of it, is PyTorch's way, with a warning."""
    monkeypatch.setattr(loading, "INTERFACE", loading.INTERFACE + 1)
    assert loading.kernels.__wrapped__() is None and "another version" in caplog.text
    monkeypatch.setattr(loading, "HERE", tmp_path)
    tmp_path.joinpath("kernels.so").symlink_to(Path(torch.__file__).with_name("lib") / "libc10.so")
    assert loading.kernels.__wrapped__() is None and "kernels could not be loaded" in caplog.text
