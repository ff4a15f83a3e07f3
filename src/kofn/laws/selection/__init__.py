"""Tables of the families of `kofn.selection` for the laws."""
