"""Who is who, and why a verdict is what it is: what flows ask of the node."""
