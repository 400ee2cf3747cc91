"""What a user of a recipe can mend."""


class SettingsError(ValueError):
    """What was asked for on the command line cannot be run."""
