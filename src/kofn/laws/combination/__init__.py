"""Tables of the families of `kofn.combination` for the laws."""
