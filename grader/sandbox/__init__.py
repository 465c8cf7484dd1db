"""Where submissions run: the worker, the wire format between judge and worker, and the isolation around it."""
