"""`make index`: write everything that is derived from the code."""

from __future__ import annotations

from kofn.indexing import collect, finding, packages, pages, papers, stub


def main() -> None:
    """Write the packages' tables, the index, the stub and, in a checkout, the reference page."""
    packages.write()
    papers.write()
    index = collect.collect()
    for path, text in collect.index_files(collect.collect_all()).items():
        path.write_text(text, encoding="utf-8")
    finding.write(index)
    (collect.HERE / "verbs.pyi").write_text(stub.stub_text(index), encoding="utf-8")
    if pages.METHODS.parent.is_dir():
        pages.METHODS.write_text(pages.methods_text(index), encoding="utf-8")


main()
