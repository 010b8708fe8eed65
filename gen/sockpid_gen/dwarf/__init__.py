"""Whether the DWARF of a kernel is all there, and where else there is some."""
