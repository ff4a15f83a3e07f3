"""Which files of the library have doctests only where an optional package is installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("flwr") else ["src/kofn/flower.py"]
