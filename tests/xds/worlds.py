"""Tiny worlds for the protocol's tests: resources that are a name and a content, nothing else."""

from __future__ import annotations

import hashlib

from xds.resources import CLUSTER, FILTER, LISTENER, Key, Resource, ResourceTable
from xds.snapshot import Snapshot, snapshot

LDS, CDS, ECDS = LISTENER, CLUSTER, FILTER


def thing(type_url: str, name: str, content: str = "1") -> Resource:
    body = f"{name}={content}".encode()
    return Resource(Key(type_url, name), body, hashlib.sha256(body).hexdigest()[:16])


def listeners(**contents: str) -> list[Resource]:
    return [thing(LDS, name, content) for name, content in contents.items()]


def filters(**contents: str) -> list[Resource]:
    return [thing(ECDS, name, content) for name, content in contents.items()]


def table(*resources: Resource) -> ResourceTable:
    return ResourceTable(tuple(sorted(resources, key=lambda r: r.key)))


def world(*resources: Resource) -> Snapshot:
    return snapshot(resources)
