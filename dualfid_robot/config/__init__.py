"""From a command line to typed settings."""
