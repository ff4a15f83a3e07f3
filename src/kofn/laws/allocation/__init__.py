"""What the families of `kofn.allocation` say of themselves to the laws."""
