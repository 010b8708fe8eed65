"""Sockets and tasks of our own, made for being looked at, of which everything is known; and looks at their memory.

What the self-check, the watch over hooks and a calibration prove things on.
"""
