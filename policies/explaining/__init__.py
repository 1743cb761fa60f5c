"""Why: who decided, what came nearest, in words and as data."""
