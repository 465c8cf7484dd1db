"""Reference solutions, one module per stub module, with the same names and signatures: staff only."""
