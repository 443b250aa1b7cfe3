"""Two policies in one network."""
