"""What a kernel image says of itself, and where its description comes from: package, vmlinux, boot image, module."""
