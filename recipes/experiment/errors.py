"""Errors that the user of a recipe can fix."""


class SettingsError(Exception):
    """Raised where what is asked for cannot be run, or a file is not what it should be."""


class LockedError(SettingsError):
    """Raised where another process trains."""
