"""Cutting long texts."""

from __future__ import annotations

from clvp_cli.text.sentences import split_sentences, split_to_fit


def test_splits_at_ends_of_sentences_only() -> None:
    """Titles, initials, decimals, domain names and a small letter after the dot end no sentence."""
    text = 'Dr. Smith paid $3.50 at amazon.co.uk. "Why?" he asked. J. R. Doe left! Etc. and so on...  Then\n\nnew part'
    assert split_sentences(text) == [
        "Dr. Smith paid $3.50 at amazon.co.uk.",
        '"Why?" he asked.',
        "J. R. Doe left!",
        "Etc. and so on...",
        "Then",
        "new part",
    ]


def test_nothing_in_gives_nothing_out() -> None:
    """White space has no sentences."""
    assert split_sentences(" \n ") == []
    assert split_to_fit(" ", len, 10) == []


def test_merges_sentences_up_to_the_limit() -> None:
    """Neighbours share a part as long as it fits."""
    assert split_to_fit("One. Two. Three. Four.", len, 10) == ["One. Two.", "Three.", "Four."]


def test_cuts_a_long_sentence_at_pauses_then_words_then_letters() -> None:
    """No part exceeds the limit, and no letter is lost."""
    text = "first part, second part that is long; " + "x" * 25
    parts = split_to_fit(text, len, 12)
    assert max(map(len, parts)) <= 12
    assert "".join(parts).replace(" ", "") == text.replace(" ", "")
    assert parts[0] == "first part,"
