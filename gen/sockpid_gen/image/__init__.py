"""The link step: a clang object with CO-RE relocations in, the bytecode image out."""
