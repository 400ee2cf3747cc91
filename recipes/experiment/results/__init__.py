"""Finished runs: their folders, the choice among them, tables and pictures."""
