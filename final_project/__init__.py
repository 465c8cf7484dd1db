"""The final project: an inference server."""
