"""What the author of a policy may not have meant: traps, shadows, voids; the validate and lint commands."""
