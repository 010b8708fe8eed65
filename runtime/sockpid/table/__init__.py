"""Offsets as data: kernel types as rows, and the shards that hold them. Pure.

docs/offsets-format.md defines the files. Uses the ground alone.
"""
