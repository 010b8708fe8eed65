"""All members of the types that we may ever need, per kernel; and tables made of that anew."""
