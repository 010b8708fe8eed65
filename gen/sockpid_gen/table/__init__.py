"""The table of offsets that is published: shards written, merged, checked, counted."""
