"""Sound ↔ log-mel: waveform (files), mel (features and back), voice (conditioning windows), features (published class)."""
