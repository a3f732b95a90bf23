"""Pure functions on text: rule signals, shingles, contamination, secrets, the one reader."""
