"""Packed products and layers: what they compute, that a row does not depend on the rows beside it, and its memory."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from clvp_cli import native
from clvp_cli.config import ClvpDecoderConfig, ClvpEncoderConfig
from clvp_cli.errors import UsageError
from clvp_cli.generation.engine import Prompt, generate
from clvp_cli.model.decoder import CodeDecoder
from clvp_cli.model.encoder import Encoder
from clvp_cli.model.initialise import initialise
from clvp_cli.model.packed import cache_dtype, least_queries, least_rows, pack_decoder, row_dtype
from clvp_cli.model.packed_encoder import pack_encoder
from clvp_cli.model.precision import WORTH_HALVING, precision
from clvp_cli.model.products import (
    FEW_ROWS,
    Product,
    can_pack,
    can_pack_halves,
    multiplies_whole_numbers,
    product,
    uses_fbgemm,
)
from clvp_cli.model.rounding import row_steps
from clvp_cli.settings import SamplingSettings

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not can_pack(CPU), reason="this build of torch has no oneDNN")
needs_kernels = pytest.mark.skipif(native.kernels() is None, reason="our kernels are not there")
OURS = [pytest.param(kind, "float32", marks=needs_kernels) for kind in ("full", "half", "brain")]
imitated = pytest.mark.skipif(
    torch.ops.mkldnn._is_mkldnn_bf16_supported() and not can_pack_halves(),
    reason="oneDNN imitates bfloat16 here, and nothing chooses it",
)
KINDS = [
    ("plain", "float32"), ("packed", "float32"), pytest.param("packed", "bfloat16", marks=imitated), *OURS,
    ("int8", "float32"), ("int4", "bfloat16"), ("int8 by PyTorch", "float32"),
]  # fmt: skip
ROUNDING = {  # of the largest output
    "float32": 1e-5, "bfloat16": 1.5e-2, "half": 1e-3, "brain": 1.5e-2, "int8": 2e-2, "int4": 0.15,
}  # fmt: skip


@pytest.fixture
def kind(request, monkeypatch):
    """A kind of product, int8 by our own kernels where they are, or as it is without them; brain wherever they are."""
    if request.param == "brain":
        monkeypatch.setattr(native, "has_brains", lambda: True)
    if request.param == "int8 by PyTorch":
        monkeypatch.setattr(native, "kernels", lambda: None)
    return request.param.removesuffix(" by PyTorch")


def made(kind, dtype, inputs=1024, outputs=3072):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(outputs, inputs, generator=generator) * 0.02
    bias = torch.randn(outputs, generator=generator) * 0.1
    x = torch.randn(64, inputs, generator=generator).to(dtype)
    return product(kind, dtype, weight, bias), torch.nn.functional.linear(x.float(), weight, bias), x


@needs_onednn
@pytest.mark.parametrize(("kind", "name"), KINDS, indirect=["kind"])
def test_products_are_the_linear_layers_they_stand_for(kind, name):
    """Each kind gives the plain product within its rounding, alone, before an activation and onto a residual."""
    dtype = getattr(torch, name)
    packed, want, x = made(kind, dtype)
    bound = ROUNDING[kind if kind in ROUNDING else name] * float(want.abs().max())
    residual = torch.ones_like(want).to(dtype)
    assert (packed(x).float() - want).abs().max() <= bound
    assert (packed.add(x, residual).float() - want - 1).abs().max() <= 1.5 * bound
    for act in ("gelu", "gelu_new", "silu"):
        expected = {
            "gelu": torch.nn.functional.gelu(want),
            "gelu_new": torch.nn.functional.gelu(want, approximate="tanh"),
            "silu": torch.nn.functional.silu(want),
        }[act]
        assert (packed.activated(x, act).float() - expected).abs().max() <= 1.5 * bound
    assert packed(x.view(4, 16, -1)).shape == (4, 16, 3072)


@needs_onednn
@pytest.mark.parametrize(("kind", "name"), KINDS[1:], indirect=["kind"])
@pytest.mark.parametrize(("inputs", "outputs"), [(1024, 3072), (4096, 1024), (64, 192)])
def test_a_row_has_the_same_bits_whatever_is_beside_it(kind, name, inputs, outputs):
    """A row's product, with an activation or onto a residual, is bit for bit the same among 1 (4) to 64 rows."""
    dtype = getattr(torch, name)
    packed, _, x = made(kind, dtype, inputs, outputs)
    residual = torch.ones(64, outputs, dtype=dtype)
    whole = packed(x), packed.activated(x, "gelu_new"), packed.add(x, residual)
    least = FEW_ROWS if name == "float32" and kind == "packed" else 1
    for rows in (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 48):
        if rows >= least:
            few = x[:rows].contiguous()
            again = packed(few), packed.activated(few, "gelu_new"), packed.add(few, residual[:rows].contiguous())
            for one, all_of_them in zip(again, whole, strict=True):
                assert torch.equal(one, all_of_them[:rows]), f"{rows} rows"


@needs_onednn
@pytest.mark.parametrize("way", ["ours", "FBGEMM", "oneDNN"])
def test_whole_numbers_are_summed_exactly(way, monkeypatch):
    """The largest digits and weights, whose pairs fill 16 bits, sum without loss in every kernel that there is.

    So they do in rows of 8 bits, outliers included; rows have 14 where most numbers are small beside the largest.
    """
    if not {"ours": native.kernels(), "FBGEMM": uses_fbgemm(), "oneDNN": True}[way]:
        pytest.skip(f"{way} does not multiply whole numbers here")
    if way != "ours":
        monkeypatch.setattr(native, "kernels", lambda: None)
        monkeypatch.setattr("clvp_cli.model.products.uses_fbgemm", lambda: way == "FBGEMM")
    draw = torch.Generator().manual_seed(0)
    weight = torch.randint(-127, 128, (48, 512), generator=draw).float()
    weight[:, 0] = weight[0] = 127.0
    x = torch.randint(-8192, 8193, (9, 512), generator=draw).float()
    x[:, 24:] = torch.randint(-64, 65, (9, 488), generator=draw).float()
    x[:, 0] = x[0, :24] = 8192.0
    x[1, :24] = -8192.0
    short = torch.randint(-127, 128, (9, 512), generator=draw).float()
    short[:, 0] = short[0] = 127.0
    short[1] = -127.0
    above = torch.randint(-8, 9, (9, 512), generator=draw).float()
    above[:, :5] = torch.tensor([100.0, -100.0, 90.0, -64.0, 80.0])
    assert bool((row_steps(torch.cat((x, short))) == 1).all()) and bool((row_steps(above) < 100 / 127).all())
    for rows in (x, short, above, torch.cat((short, x, above))):
        got, step = product("int8", torch.float32, weight, None)(rows).double(), row_steps(rows)
        whole = (rows * step.reciprocal()).round().double()
        torch.testing.assert_close(got, whole @ weight.double().t() * step.double(), rtol=1e-6, atol=1)


@needs_onednn
def test_columns_are_evened_out_before_they_are_rounded(plain):
    """Channels that a norm makes 100 times as large, to columns as much smaller, cost int8 nothing."""
    decoder, prefixes = copy.deepcopy(plain[0]), plain[1]
    for layer in decoder.stack.layers:
        layer.input_layernorm.weight[:6] *= 100
        layer.post_attention_layernorm.weight[:6] *= 100
        for part in (layer.attn.q_proj, layer.attn.k_proj, layer.attn.v_proj):
            part.weight[:, :6] /= 100
        layer.mlp.c_fc.weight[:6] /= 100
    codes = torch.randint(0, 298, (2, 20))
    packed = [packed_copy(each, "int8", "float32") for each in (plain[0], decoder)]
    with torch.inference_mode():
        want, even, uneven = (
            each.logits(each.teacher_forced(torch.stack([prefixes[0]] * 2), codes)) for each in (plain[0], *packed)
        )
    assert (uneven - want).square().mean() <= 1.5 * (even - want).square().mean()


@needs_onednn
def test_outlying_channels_leave_the_others_their_bits():
    """Channels 60 times as large as the others, as trained decoders have them, cost the int8 product nothing."""
    draw = torch.Generator().manual_seed(1)
    weight, x = torch.randn(256, 1024, generator=draw) * 0.02, torch.randn(16, 1024, generator=draw)
    x[:, :4] *= 60
    want = torch.nn.functional.linear(x, weight)
    rounded = weight.div(weight.abs().amax(1, keepdim=True) / 127).round() * weight.abs().amax(1, keepdim=True) / 127
    lost = torch.nn.functional.linear(x, rounded) - want  # what rounding the weights costs in any case
    error = product("int8", torch.float32, weight, None)(x) - want
    assert error.std() <= 1.01 * lost.std()


SMALL = ClvpDecoderConfig(
    vocab_size=300, hidden_size=256, num_hidden_layers=3, num_attention_heads=4, bos_token_id=298, eos_token_id=299
)


@pytest.fixture(scope="module")
def plain():
    """A small decoder in float32 whose next codes vary, and two prefixes."""
    torch.manual_seed(0)
    decoder = CodeDecoder(SMALL)
    initialise(decoder, SMALL)
    with torch.no_grad():
        decoder.lm_head.weight.mul_(10)
        decoder.lm_head.bias[299] = 2.0  # rows end at different codes
    return decoder.requires_grad_(False).eval(), [torch.randn(length, 256) for length in (7, 13)]


def packed_copy(decoder, kind, name):
    return pack_decoder(copy.deepcopy(decoder), kind, getattr(torch, name))


@needs_onednn
@pytest.mark.parametrize(("kind", "name"), KINDS, indirect=["kind"])
def test_packed_decoders_are_the_decoder(plain, kind, name):
    """Logits of a teacher-forced pass stay within the rounding of the kind."""
    decoder, prefixes = plain
    packed = packed_copy(decoder, kind, name)
    codes = torch.randint(0, 298, (2, 20))
    flow = packed.final_norm.weight.dtype
    with torch.inference_mode():
        want = decoder.logits(decoder.teacher_forced(torch.stack([prefixes[0]] * 2), codes))
        got = packed.logits(packed.teacher_forced(torch.stack([prefixes[0]] * 2).to(flow), codes)).float()
    bound = {"float32": 1e-4, "bfloat16": 0.04, "half": 4e-3, "brain": 0.04, "int8": 0.04, "int4": 0.3}[
        kind if kind in ROUNDING else name
    ]
    assert (got - want).abs().max() <= bound * want.abs().max()


@needs_onednn
@pytest.mark.parametrize(("kind", "name"), KINDS[1:], indirect=["kind"])
def test_candidates_are_their_own_in_every_precision(plain, kind, name):
    """Codes and log-probabilities are bit for bit the same at any N and batch size, through rows being refilled."""
    decoder, prefixes = plain
    packed = packed_copy(decoder, kind, name)
    options = SamplingSettings(max_codes=70, temperature=1.0, top_p=0.95, repetition_penalty=1.2)

    def run(count, batch):
        found = generate(packed, [Prompt(p, 5, range(count)) for p in prefixes], options, batch_size=batch)
        return {(g.prompt, g.index): (g.codes.tolist(), g.stopped, g.logprob) for g in found}

    whole = run(7, 0)
    assert len({len(codes) for codes, _, _ in whole.values()}) > 3, "lengths should differ, or nothing is refilled"
    for batch in (1, 3, 5):
        assert run(7, batch) == whole
    assert run(2, 0) == {key: value for key, value in whole.items() if key[1] < 2}


@needs_onednn
def test_widths_that_no_kernel_of_ours_takes():
    """An MLP of 100 in the middle goes PyTorch's way, rows of float32 then in company; candidates stay their own."""
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, n_inner=100, num_hidden_layers=1)
    decoder = CodeDecoder(config)
    initialise(decoder, config)
    prompt = torch.randn(7, 256)
    options = SamplingSettings(max_codes=9, min_codes=9)
    for kind, rows in (("full", FEW_ROWS), ("int8", 1)):
        packed = packed_copy(decoder.eval(), kind, "float32")
        assert least_rows(packed) == rows
        together, alone = (
            sorted(
                (g.codes.tolist(), g.logprob)
                for g in generate(packed, [Prompt(prompt, 5, range(3))], options, batch_size=n)
            )
            for n in (0, 1)
        )
        assert together == alone


@needs_onednn
@pytest.mark.parametrize("ours", [True, False])
def test_what_caches_keep(plain, ours, monkeypatch):
    """Caches are as wide as weights and processor deserve, and float32 alone needs companions in a batch."""
    if not ours:
        monkeypatch.setattr(native, "kernels", lambda: None)
    ours = native.kernels() is not None
    sixteen = torch.float16 if ours else torch.bfloat16
    beside_int8 = sixteen if ours or can_pack_halves() else torch.float32
    for kind, name, cache, rows in (
        ("plain", "float32", torch.float32, FEW_ROWS),
        ("packed", "float32", torch.float32, FEW_ROWS),
        ("full", "float32", torch.float32, 1 if ours else FEW_ROWS),
        ("packed", "bfloat16", sixteen, 1),
        ("int8", "float32", beside_int8, 1),
        ("int4", "bfloat16", sixteen, 1),
    ):
        packed = packed_copy(plain[0], kind, name)
        assert (cache_dtype(packed), least_rows(packed)) == (cache, rows)
        assert row_dtype(packed) == (torch.int8 if ours and kind == "int8" else cache)
        assert least_queries(packed) == (FEW_ROWS if cache == torch.float32 else 1)


@needs_onednn
@pytest.mark.parametrize(("kind", "name"), KINDS[:7], indirect=["kind"])
def test_packed_encoders_are_the_encoder(kind, name):
    """Embeddings of packed encoders point where the encoder's do."""
    torch.manual_seed(1)
    config = ClvpEncoderConfig(
        vocab_size=100, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        projection_dim=128,
    )  # fmt: skip
    encoder = Encoder(config).requires_grad_(False).eval()
    initialise(encoder, config)
    ids = torch.randint(0, 100, (3, 40))
    want = encoder.embed(ids)
    got = pack_encoder(copy.deepcopy(encoder), kind, getattr(torch, name)).embed(ids).float()
    least = 0.999 if kind in ("int8", "brain") or name == "bfloat16" else 0.99999
    assert torch.nn.functional.cosine_similarity(got, want).min() >= least


def test_biasless_and_odd_weights_are_packed_too():
    """A projection without bias, and a width whose groups int4 cannot take, still multiply."""
    weight = torch.randn(50, 96)
    x = torch.randn(5, 96)
    for kind, dtype in (("packed", torch.float32), ("int8", torch.float32), ("int4", torch.bfloat16)):
        got = product(kind if can_pack(CPU) else "plain", dtype, weight, None)(x.to(dtype)).float()
        assert (got - x @ weight.t()).abs().max() <= 0.03 * (x @ weight.t()).abs().max()


def test_packing_keeps_nothing_of_the_originals(plain):
    """A packed decoder shares no memory with what it was made of, so that a mapped file can be let go."""
    decoder = copy.deepcopy(plain[0])
    mapped = {tensor.untyped_storage().data_ptr(): tensor for tensor in decoder.state_dict().values()}
    packed = pack_decoder(decoder, "plain", torch.float32)
    assert not mapped.keys() & {tensor.untyped_storage().data_ptr() for tensor in packed.state_dict().values()}
    assert any(isinstance(module, Product) for module in packed.modules())


def test_weights_in_a_file_are_never_written_to(plain):
    """Packing leaves the tensors it reads as they are: they may be a file's own pages."""
    decoder = copy.deepcopy(plain[0])
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    tensors = decoder.state_dict()
    for kind in ("plain", "int8", "int4") if can_pack(CPU) else ("plain",):
        replica = CodeDecoder(SMALL).requires_grad_(False).eval()
        replica.load_state_dict(tensors, assign=True)
        pack_decoder(replica, kind)
    assert all(torch.equal(tensors[name], before[name]) for name in before)


@needs_kernels
@pytest.mark.parametrize("turned", [False, True])
def test_halves_in_a_file_are_never_written_to(turned):
    """What is too large for the kernel is made smaller in its own copy alone."""
    weight = torch.full((16, 16), torch.inf, dtype=torch.float16)
    made = product("half", torch.float32, weight.t() if turned else weight, None)
    assert weight.isinf().all() and made(torch.eye(16)).isfinite().all()


@needs_onednn
@pytest.mark.parametrize(("wide", "tiles", "name"), [(0, 0, "bfloat16"), (1, 0, "int8"), (1, 1, "bfloat16")])
def test_auto_is_bfloat16_unless_whole_numbers_are_as_quick(monkeypatch, wide, tiles, name):
    """AVX512-VNNI by our kernels has as many of them at once, in half the memory; AMX has many more halves."""
    monkeypatch.setattr("clvp_cli.model.precision.multiplies_halves", lambda device: True)
    monkeypatch.setattr("clvp_cli.model.precision.has_tiles", lambda: tiles)
    monkeypatch.setattr("clvp_cli.model.precision.multiplies_whole_numbers", lambda: True)
    monkeypatch.setattr(native, "is_wide", lambda: wide)
    assert precision("auto", CPU, WORTH_HALVING).name == name


@pytest.mark.parametrize("tiles", [False, True])
def test_bfloat16_is_by_our_kernels_where_they_are_quickest(monkeypatch, tiles):
    """AVX512-BF16, but not AMX, for which oneDNN's are left."""
    monkeypatch.setattr(native, "has_brains", lambda: True)
    monkeypatch.setattr("clvp_cli.model.products.has_tiles", lambda: tiles)
    monkeypatch.setattr("clvp_cli.model.products.can_pack_halves", lambda: True)
    chosen = precision("bfloat16", CPU, 0)
    assert (chosen.kind, chosen.dtype) == (("packed", torch.bfloat16) if tiles else ("brain", torch.float32))


def test_auto_is_float32_where_nothing_is_gained(monkeypatch):
    """Small models stay in float32; large ones take what the processor is quickest with."""
    monkeypatch.setattr("clvp_cli.model.precision.multiplies_halves", lambda device: True)
    monkeypatch.setattr(native, "is_wide", lambda: False)
    assert precision("auto", CPU, WORTH_HALVING - 1).name == "float32"
    assert precision("auto", CPU, WORTH_HALVING).name == "bfloat16"
    monkeypatch.setattr("clvp_cli.model.precision.multiplies_halves", lambda device: False)
    assert precision("auto", CPU, WORTH_HALVING - 1).name == "float32"
    best = "int8" if can_pack(CPU) and multiplies_whole_numbers() else "float32"
    assert precision("auto", CPU, WORTH_HALVING).name == best
    ours = native.kernels() is not None
    assert precision("float16", CPU, 0).kind == ("half" if ours else "packed")
    assert precision("float32", CPU, 0).kind == ("full" if ours and not native.is_outdone() else "packed")
    with pytest.raises(UsageError, match="int8"):
        precision("int8", torch.device("cuda"), 0)


def test_activations_without_a_fused_kernel_are_the_same(plain):
    """A decoder with another activation packs to the same function."""
    config = dataclasses.replace(SMALL, activation_function="silu")
    decoder = CodeDecoder(config).requires_grad_(False).eval()
    initialise(decoder, config)
    codes = torch.randint(0, 298, (1, 9))
    prefix = plain[1][0][None]
    want = decoder.logits(decoder.teacher_forced(prefix, codes))
    packed = pack_decoder(copy.deepcopy(decoder), "packed" if can_pack(CPU) else "plain")
    torch.testing.assert_close(packed.logits(packed.teacher_forced(prefix, codes)), want, rtol=1e-4, atol=1e-4)
