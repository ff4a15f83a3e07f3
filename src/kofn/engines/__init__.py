"""Where work runs and how it is stopped."""
