"""Which process really owns a TCP socket when the kernel acts on it in softirq context.

The package stands in wings, each of which uses those below it alone: docs/architecture.md shows them. The lower ones
(table, btf, image, event, graph, request, bundle, manual) are pure: they turn bytes into values, and ask no kernel, no
file and no clock. The others do the rest; exactly one module, `sockpid.syscall`, talks to the kernel's system call
interface.
"""

__version__ = "0.2.0"
