"""Who owns a socket, how sure that is, and what /proc adds: the second witness, doubts, names, labels."""
