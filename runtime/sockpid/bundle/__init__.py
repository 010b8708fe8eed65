"""One file that carries all a host needs: its form, who signed it, and modules that run out of its bytes. Pure."""
