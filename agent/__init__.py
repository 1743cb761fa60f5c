"""The composition root: configuration, wiring, the order of effects, supervision, command line.

Imports all; nobody imports it.
"""
