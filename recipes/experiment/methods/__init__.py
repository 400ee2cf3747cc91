"""Losses and models of other methods, which recipes compare the penalties with."""
