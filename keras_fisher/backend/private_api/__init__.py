"""Every private API of another package that this one uses, one file per package.

Each says why nothing public does. `tests/backend/test_private_api.py` fails when one goes away.
"""
