"""What a robot is, whatever engine simulates it."""
