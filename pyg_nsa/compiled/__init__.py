"""What Numba compiles for the CPU, and how it runs; nothing about attention or graphs."""
