"""One file that runs anywhere, and what is put into a host from it: bundle, signature, unit, manual, completion."""
