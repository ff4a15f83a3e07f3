"""What the objectives say of themselves to the laws."""
