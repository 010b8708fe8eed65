"""The generator: makes offset tables of kernels, and images of BPF objects. For connected machines."""
