"""``python -m cachecraft`` is the command ``cachecraft``."""

from cachecraft.cli import main

if __name__ == "__main__":
    main()
