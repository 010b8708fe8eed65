"""Where the offsets for the running kernel come from: tables, its own BTF, what was kept; and whether they agree."""
