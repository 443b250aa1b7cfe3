"""The engines, each in a folder of its own, behind one contract."""
