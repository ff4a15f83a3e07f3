"""Shared rigs: paired comparisons, seeds over processes, small learners, data."""
