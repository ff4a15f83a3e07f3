"""What is derived from the code by `make index`: packages, index, stubs and reference pages."""
