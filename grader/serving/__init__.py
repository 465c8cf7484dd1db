"""The load test of the final project: servers started in a sandbox, replayed a trace, measured and scored."""
