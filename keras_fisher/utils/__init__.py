"""Shared utilities: argument checks, labels, masks, messages, stateless variables."""
