"""Errors that a user can mend: they are printed as one line, and the program exits with status 2."""


class ConfigError(ValueError):
    """A setting, file or combination that cannot work. The message names the key, the value and what is allowed."""


class NotFiniteError(ConfigError):
    """A value that training computed is not finite: its settings, the task or the robot are the reason."""
