"""Tables of the objectives for the laws."""
