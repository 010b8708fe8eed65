"""A kernel that nobody has seen: what a connected machine must know of it, as text and as QR codes."""
