"""Errors that the user of a recipe can fix."""


class SettingsError(Exception):
    """Raised when the requested runs are impossible, or a file has unexpected content."""


class LockedError(SettingsError):
    """Raised when another process is training in the folder."""
