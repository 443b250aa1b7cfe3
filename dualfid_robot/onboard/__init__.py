"""What runs on a robot: NumPy and onnxruntime are all that it needs."""
