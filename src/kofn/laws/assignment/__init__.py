"""What the families of `kofn.assignment` say of themselves to the laws."""
