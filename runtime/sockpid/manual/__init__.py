"""The command line as data, and what is made of it: manual page, completion for shells. Pure."""
