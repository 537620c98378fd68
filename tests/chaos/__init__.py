"""Production under a hail of faults: default settings, every kind of function, and what must hold all the same."""
