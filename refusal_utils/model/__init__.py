"""Load a chat model, encode chats with its template, capture activations, and keep them on disk."""
