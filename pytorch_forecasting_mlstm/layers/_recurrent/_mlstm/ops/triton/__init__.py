"""The Triton backend: the chunkwise form on CUDA devices.

Importing this package imports neither Triton nor anything that needs it.
"""
