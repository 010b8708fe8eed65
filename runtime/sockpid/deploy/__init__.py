"""What is put into a host, all of it or nothing, and taken away again: the bundle, its unit, manual, completion."""
