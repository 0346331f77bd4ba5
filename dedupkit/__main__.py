"""``python -m dedupkit``."""

from dedupkit.cli.main import main

if __name__ == "__main__":
    main()
