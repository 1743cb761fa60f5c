"""The DNS proxy: what a pod may ask, and which addresses a name was answered with. docs/dns.md is its story.

wire, names_on_wire   bytes -> query or answer            (pure)
replies               what we answer ourselves            (pure)
patterns, judge       which questions are allowed         (pure)
transactions          which queries are open              (pure)
answers, names        what was learned, and for how long  (pure)
journal               what survives a restart             (pure; journal_file is its thin shell)
packets               UDP answers as IP packets           (pure)
proxy and its parts   sockets                             (the only ones that touch any)
"""
