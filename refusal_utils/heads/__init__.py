"""Which attention heads write a direction, how sure that is, and what replacing them does."""
