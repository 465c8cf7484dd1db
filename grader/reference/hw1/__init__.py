"""Reference solutions of homework 1, generation algorithms."""
