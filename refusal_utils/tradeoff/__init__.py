"""Refusal against over-refusal: the controlled set, sweeps over strengths, curves and the knob test."""
