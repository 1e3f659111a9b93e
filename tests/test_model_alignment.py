"""The alignment head: its probabilities, its score, and what padding must not change."""

from __future__ import annotations

import itertools

import pytest
import torch

from clvp_cli.errors import ConfigError, InputError
from clvp_cli.model.alignment import AlignmentConfig, AlignmentHead

SMALL = AlignmentConfig(input_size=12, hidden_size=8, vocab_size=5, num_layers=2, kernel_size=3, ignored_ids=[0, 2])


@pytest.fixture
def head() -> AlignmentHead:
    torch.manual_seed(0)
    return AlignmentHead(SMALL).eval()


def test_log_probabilities_sum_to_one(head: AlignmentHead) -> None:
    """Each code has a distribution over text tokens and the blank."""
    log_probs = head(torch.randn(2, 7, 12))
    assert log_probs.shape == (2, 7, 6)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(2, 7))


def test_the_likelihood_is_the_sum_over_all_alignments(head: AlignmentHead) -> None:
    """Against a sum over every path, for four codes and the text 1 3."""
    log_probs = head(torch.randn(1, 4, 12)).detach()

    def said(path: tuple[int, ...]) -> list[int]:
        return [token for token, _ in itertools.groupby(path) if token != SMALL.blank]

    paths = [path for path in itertools.product(range(6), repeat=4) if said(path) == [1, 3]]
    total = torch.stack([sum(log_probs[0, t, token] for t, token in enumerate(path)) for path in paths]).logsumexp(0)
    assert torch.allclose(head.log_likelihood(log_probs, torch.tensor([4]), [[1, 3]])[0], total, atol=1e-5)


def test_the_score_is_a_mean_over_tokens_that_can_be_heard(head: AlignmentHead) -> None:
    """Blanks between words and special tokens do not count."""
    log_probs, lengths = head(torch.randn(1, 9, 12)).detach(), torch.tensor([9])
    whole = head.log_likelihood(log_probs, lengths, [[1, 3, 4]])
    assert torch.allclose(head.score(log_probs, lengths, [[1, 2, 3, 4, 0]]), whole / 3)


def test_a_text_too_long_for_its_codes_scores_below_any_other(head: AlignmentHead) -> None:
    """It gets no free pass, and stays a finite number."""
    log_probs, lengths = head(torch.randn(2, 3, 12)).detach(), torch.tensor([3, 3])
    long, short = head.score(log_probs, lengths, [[1, 3, 4, 1, 3], [1, 3]]).tolist()
    assert long < short
    assert torch.isfinite(torch.tensor(long))


def test_padding_changes_no_score(head: AlignmentHead) -> None:
    """A row's log-probabilities under a mask are those it has alone."""
    alone = torch.randn(1, 5, 12)
    padded = torch.cat((alone, torch.randn(1, 4, 12)), dim=1)
    mask = (torch.arange(9) < 5).long()[None]
    assert torch.allclose(head(padded, mask)[:, :5], head(alone), atol=1e-6)


def test_a_text_without_sound_is_refused(head: AlignmentHead) -> None:
    """Nothing to hear is an error, not a division by zero."""
    with pytest.raises(InputError, match="can be heard"):
        head.score(head(torch.randn(1, 5, 12)), torch.tensor([5]), [[0, 2]])


@pytest.mark.parametrize(
    "bad",
    [{"num_layers": 2**31}, {"num_layers": "2"}, {"vocab_size": 10**9}, {"ignored_ids": 5}, {"ignored_ids": ["x"]}],
)
def test_sizes_that_no_head_has_are_refused_before_it_is_built(bad: dict[str, object]) -> None:
    """A number that would build for ever, or fill the memory, is an error at once, as is another type."""
    with pytest.raises(ConfigError, match="alignment "):
        AlignmentConfig.from_dict(bad)
