"""The PyTorch backend: the chunkwise form, with a backward pass of its own."""
