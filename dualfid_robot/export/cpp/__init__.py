"""The exported policy as a C++ header, and the check that compiles it."""
