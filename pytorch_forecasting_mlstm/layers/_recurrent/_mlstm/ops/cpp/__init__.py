"""The C++ backend: the recurrence step by step, compiled for the processor it runs on."""
