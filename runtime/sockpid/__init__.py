"""Which process really owns a TCP socket when the kernel acts on it in softirq context.

The package has two halves. The *pure half* (errors, arch, insn, layout, btf, table, image, relocate, hooks, notes,
event) turns bytes into values: no ctypes, no /proc, no clock. The *kernel half* does the rest; exactly one module,
`sockpid.syscall`, talks to the kernel's system call interface.
"""

__version__ = "0.1.0"
