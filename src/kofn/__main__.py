"""The command line, with interrupts handled before anything heavy is loaded; `python -m kofn` is the same."""

from __future__ import annotations

import sys

from kofn._interrupts import handled, settle


def main() -> None:
    """Run the command line on what was typed."""
    with handled():
        try:
            from kofn.cli import main as run

            settle()
        except KeyboardInterrupt:
            sys.stderr.write("kofn: interrupted; no output was written\n")
            sys.exit(130)
        run()


if __name__ == "__main__":
    main()
