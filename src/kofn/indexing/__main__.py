"""`make index`."""

from kofn.indexing.collect import main

main()
