"""`sockpid run`, from the start to the last event: signals, configuration, outputs, sums."""
