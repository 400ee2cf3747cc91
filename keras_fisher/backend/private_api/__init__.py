"""What this package uses of private modules of other packages, one file per package.

Each says why no public API is enough. `tests/backend/test_private_api.py` fails if one disappears.
"""
