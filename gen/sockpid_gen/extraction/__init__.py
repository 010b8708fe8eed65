"""One kernel's offsets, read from everything that describes it, and held against each other."""
