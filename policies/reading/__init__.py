"""Objects as written: text -> raw documents -> checked rules and objects, every fault with its field path."""
