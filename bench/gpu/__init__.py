"""What there is to check and to measure on a machine with a GPU, a module a part; ``bench.gpu_check`` runs them."""
