"""Tables of the families of `kofn.allocation` for the laws."""
