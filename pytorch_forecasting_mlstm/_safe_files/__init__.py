"""Files that hold plain data and tensors, and that are read without running any code."""
