"""``python -m dsca_ros.cli``."""

from dsca_ros.cli import main

if __name__ == "__main__":
    main()
