"""`python -m kofn` is the command line too."""

from kofn.cli import main

if __name__ == "__main__":
    main()
