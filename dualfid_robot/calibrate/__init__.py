"""calibrate.py: fits E_low to E_high."""
