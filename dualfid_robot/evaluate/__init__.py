"""Returns of complete episodes, in numbers and in films."""
