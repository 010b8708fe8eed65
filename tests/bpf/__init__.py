"""A machine for BPF programs, and a kernel made up around it, in which tests order every step.

memory: objects at addresses. maps: the kernel's maps, elements of which are reused at once. translate: a program as a
Python generator that stops wherever another CPU or a preempting task could come between. calls: the helpers. kernel:
sockets and tasks at a layout of the test's choice. image: the committed programs, relocated for it. schedule: orders in
which several programs can run.
"""
