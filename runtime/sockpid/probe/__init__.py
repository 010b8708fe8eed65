"""The hooks, loaded and attached for this kernel; sockets that are older, and room in the maps.

`Tracer` is the whole of it: identify, find offsets, load, attach, seed, read events.
"""
