"""Generative Adversarial Nets (Goodfellow et al., 2014) as fast, small, exact software."""

__version__ = "0.1.0"
