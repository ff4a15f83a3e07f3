"""What every method stands on: the vocabulary, plans, constraints, the registry and dispatch."""
