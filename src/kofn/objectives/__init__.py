"""What a selection is worth: set functions that a greedy search asks for gains."""
