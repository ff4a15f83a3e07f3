"""What the families of `kofn.selection` say of themselves to the laws."""
