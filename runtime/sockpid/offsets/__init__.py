"""Where the offsets for the running kernel come from: tables, its own BTF, consensus; and whether they agree."""
