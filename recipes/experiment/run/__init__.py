"""One training: its data, its model, its measurements and its record on disk."""
