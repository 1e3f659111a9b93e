"""Sound ↔ log-mel: files (waveform), features and back (mel), windows (voice), the published class (features)."""
