"""`sockpid calibrate`: offsets of a kernel that nobody has described, found in memory whose content is known."""
