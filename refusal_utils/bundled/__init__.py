"""The bundled chat model: its training data and grammar, how it was trained, and what is measured on it."""
