"""BTF as drgn takes it, BTF read a second time by other code, and BTF that pahole makes of DWARF."""
