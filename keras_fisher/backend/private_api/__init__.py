"""All private APIs of other packages that this package uses, one file per package.

Each says why no public API is enough. `tests/backend/test_private_api.py` fails if one disappears.
"""
