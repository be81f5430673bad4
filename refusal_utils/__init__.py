"""Refusal geometry: whether a chat model's refusals are one direction or many, with error bars."""

__version__ = "0.1.0"
