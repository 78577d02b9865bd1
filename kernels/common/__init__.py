"""What every operation shares."""
