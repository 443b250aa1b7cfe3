"""PhysX, through SAPIEN, in processes of its own."""
