"""The DNS proxy: what a pod may ask, and which addresses a name was answered with. docs/dns.md is its story.

wire, names_on_wire   bytes -> query or answer            (pure)
replies               what we answer ourselves            (pure)
judge                 which questions are allowed         (pure)
transactions          which queries are open              (pure)
answers, lessons      what an answer teaches; what waits  (pure)
packets               UDP answers as IP packets           (pure)
proxy and its parts   sockets                             (the only ones that touch any)
"""
