"""Reference solutions of homework 2, meta-generation."""
