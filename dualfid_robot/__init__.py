"""Robot policies trained in two simulators at once."""

__version__ = "0.1.0"
