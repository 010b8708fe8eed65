"""Does the probe see what is true? Sockets of our own are made to retransmit, and every value is compared."""
