"""Many kernels: what there is to read in repositories and directories, who reads it, and requests answered."""
