"""Tables of the families of `kofn.federated` for the laws."""
