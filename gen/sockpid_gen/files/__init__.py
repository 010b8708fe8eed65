"""Packages and images as streams of bytes: tar, deb, rpm, zip, the compressions, ELF sections."""
