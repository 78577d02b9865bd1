"""Hand-written operations, one folder each: the public operations, nothing else."""
