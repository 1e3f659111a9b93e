"""ClvpConditioningEncoder under its published name."""

from __future__ import annotations

from ..model.conditioning import ConditioningEncoder, group_norm_groups


class ClvpConditioningEncoder(ConditioningEncoder):
    """Log-mels and text → the decoder's prefix.

    forward(input_features (B, 80, F), input_ids (B, S) or inputs_embeds (B, S, D), attention_mask (B, S)) → prefix
    (B, S + 3, D): [voice vector | begin, text, stop]. One text × N voices and N texts × one voice repeat; other
    numbers that differ raise InputError, a ValueError. The published class crashes on inputs_embeds; here they work.
    """

    def compute_groupnorm_groups(self, channels: int, groups: int = 32) -> int:
        """Groups of the GroupNorm for `channels`. `groups` is where the search starts and always 32."""
        return group_norm_groups(channels)
