"""Tables of the families of `kofn.assignment` for the laws."""
