"""What the families of `kofn.federated` say of themselves to the laws."""
