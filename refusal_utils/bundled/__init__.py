"""The bundled chat model: its training data and grammar, its training code, and the measurements made on it."""
