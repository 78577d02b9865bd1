"""What of this folder pytest is to leave alone when it looks for doctests: files for processes of their own."""

collect_ignore = ["compile_numba_cuda.py", "simulated_numba_cuda.py"]
