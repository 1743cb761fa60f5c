"""Rules, selectors and identities -> the IR: what each policy group must enforce, and by which slots."""
