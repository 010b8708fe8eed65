"""Whatever describes one kernel must say the same: two sources held against each other, and samples of whole tables."""
