"""The published tables as data, and the comparison of our numbers with them."""
