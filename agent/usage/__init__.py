"""Which rules are used: counted, kept, shown."""
