"""Comparisons: verified, then timed, then written to CSV files, which the tables of the documentation are made of."""
