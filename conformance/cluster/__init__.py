"""Suites in a real cluster: pods by kubectl, clients inside them, policies by kubectl, flows from the relay."""
