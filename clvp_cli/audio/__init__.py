"""Sound ↔ log-mel: waveform has files, mel the features, voice the conditioning windows, features the published class."""
