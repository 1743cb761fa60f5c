"""What `deflector` prints of a node, as plain data and as text."""
