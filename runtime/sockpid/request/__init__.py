"""What a connected machine must know of a kernel that nobody has seen: as text, and as QR codes. Pure."""
