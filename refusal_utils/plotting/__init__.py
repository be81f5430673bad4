"""Figures: one look, one way to save, and the figures that several notebooks share."""
