"""Files that `make index` derives from the code: packages, index, stubs and reference pages."""
