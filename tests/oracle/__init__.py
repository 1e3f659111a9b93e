"""Live comparisons with the reference systems: `make oracle`. Skipped wherever those are not installed."""
