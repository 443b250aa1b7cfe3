"""play.py: policies to look at."""
