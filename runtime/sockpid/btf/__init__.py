"""BTF, the kernel's own description of its types, read with the standard library. Pure.

Made for one question, where some forty fields of a dozen structs lie. Gives what `table` calls a layout.
"""
