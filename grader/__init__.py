"""The judge: hidden tests, references, sandbox, scores and reports. Staff only; never in a student release."""
