"""What sockpid costs, as ratios within one run; absolute figures stand beside them."""
