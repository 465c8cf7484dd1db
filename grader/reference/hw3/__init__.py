"""Reference solutions of homework 3, hardware and optimization."""
