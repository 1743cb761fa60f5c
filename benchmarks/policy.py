"""Policies as files, as a user would save them. Text is made line by line: ten thousand rules through a YAML printer
take seconds. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

HEAD = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: {name}
  namespace: default
spec:
  endpointSelector:
    matchLabels:
      class: deathstar
  ingress:
  - fromEndpoints:
    - matchLabels:
        org: empire
    toPorts:
    - ports:
      - port: "{port}"
        protocol: TCP
"""

# form -> the pattern of rule number n; the numbers have leading zeros, so that the last one sorts last. The regex has a
# class before what tells the rules apart: joined naively, all ten thousand alternatives are alive while it is read.
PATTERNS: dict[str, Callable[[int], str]] = {
    "exact": lambda n: f"/v1/ships/{n:05d}/landing",
    "prefix": lambda n: f"/v1/ships/{n:05d}/.*",
    "regex": lambda n: f"/v[0-9]+/ships/{n:05d}/[a-z]+(/.*)?",
}
# form -> a path that rule number n, and no other, allows
PATHS: dict[str, Callable[[int], str]] = {
    "exact": lambda n: f"/v1/ships/{n:05d}/landing",
    "prefix": lambda n: f"/v1/ships/{n:05d}/landing",
    "regex": lambda n: f"/v1/ships/{n:05d}/landing/bay-7",
}


def plain_policy(name: str, port: int) -> str:
    """Allows the empire on the port, without rules for HTTP."""
    return HEAD.format(name=name, port=port)


def http_policy(name: str, port: int, paths: Iterable[str]) -> str:
    """Allows the empire to GET these paths (RE2, full match) on the port."""
    rules = "".join(f"        - method: GET\n          path: '{path}'\n" for path in paths)
    return f"{HEAD.format(name=name, port=port)}      rules:\n        http:\n{rules}"


def many_rules(form: str, count: int, port: int) -> str:
    """A policy with `count` rules of one form."""
    return http_policy(f"{form}-{count}", port, map(PATTERNS[form], range(1, count + 1)))


def last_path(form: str, count: int) -> str:
    """The path that only the last of `count` rules allows."""
    return PATHS[form](count)
