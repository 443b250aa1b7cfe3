"""What engines that run in other processes share."""
