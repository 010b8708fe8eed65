"""The words of the command line, and what is done with each. Above everything else."""
