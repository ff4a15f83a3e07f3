"""`make index`: write everything that is derived from the code."""

from __future__ import annotations

import sys

from kofn.core.checks import KofnError
from kofn.indexing import collect, finding, packages, pages, papers, stub


def main() -> None:
    """Write the packages' tables, the index, the stub and, in a checkout, the reference page."""
    try:
        packages.write()
        papers.write()
        index, everything = collect.collect(), collect.collect_all()
    except (KofnError, ValueError) as error:
        sys.exit(f"make index: {error}")
    for path, text in collect.index_files(everything).items():
        path.write_text(text, encoding="utf-8")
    finding.write(index)
    (collect.HERE / "verbs.pyi").write_text(stub.stub_text(index), encoding="utf-8")
    if pages.METHODS.parent.is_dir():
        pages.METHODS.write_text(pages.methods_text(everything), encoding="utf-8")


main()
