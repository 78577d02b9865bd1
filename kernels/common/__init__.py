"""What every operation shares: randomness, argument checks, the choice of a backend, matrix products."""
