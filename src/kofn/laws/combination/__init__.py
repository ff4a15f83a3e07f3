"""What the families of `kofn.combination` say of themselves to the laws."""
