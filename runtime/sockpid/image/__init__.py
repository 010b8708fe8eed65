"""The linked bytecode: programs, their relocations, and the places in the kernel where they are to hang. Pure.

docs/image-format.md defines the file. Knows layouts (`table`), and nothing of how programs are loaded.
"""
