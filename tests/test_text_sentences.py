"""Cutting texts into sentences."""

from __future__ import annotations

from clvp_cli.text.sentences import split_sentences


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


def test_initials_numbers_and_hours() -> None:
    """Initials without blanks end no sentence, "no." only before a number, an hour's "p.m." does."""
    text = "The U.S. Army came. She said no. He left at 5 p.m. It was no. 7 of nine."
    assert split_sentences(text) == [
        "The U.S. Army came.",
        "She said no.",
        "He left at 5 p.m.",
        "It was no. 7 of nine.",
    ]


def test_nothing_in_gives_nothing_out() -> None:
    """White space has no sentences."""
    assert split_sentences(" \n ") == []
