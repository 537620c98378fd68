"""What type checkers must make of the public names. Never run: `mypy --strict` reads it."""
