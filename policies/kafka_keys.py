"""Kafka's APIs by name and number, and those that a role stands for. Pure; docs/kafka.md says why each is in its role.

Names are lower-case, without separators: up to 33 those that Cilium knows (facts 5), then Kafka's own.
"""

from __future__ import annotations

from typing import Final

_NAMES: Final = (
    *("produce", "fetch", "offsets", "metadata", "leaderandisr", "stopreplica", "updatemetadata"),
    *("controlledshutdown", "offsetcommit", "offsetfetch", "findcoordinator", "joingroup", "heartbeat"),
    *("leavegroup", "syncgroup", "describegroups", "listgroups", "saslhandshake", "apiversions", "createtopics"),
    *("deletetopics", "deleterecords", "initproducerid", "offsetforleaderepoch", "addpartitionstotxn"),
    *("addoffsetstotxn", "endtxn", "writetxnmarkers", "txnoffsetcommit", "describeacls", "createacls"),
    *("deleteacls", "describeconfigs", "alterconfigs", "alterreplicalogdirs", "describelogdirs"),
    *("saslauthenticate", "createpartitions", "createdelegationtoken", "renewdelegationtoken"),
    *("expiredelegationtoken", "describedelegationtoken", "deletegroups", "electleaders"),
    *("incrementalalterconfigs", "alterpartitionreassignments", "listpartitionreassignments", "offsetdelete"),
    *("describeclientquotas", "alterclientquotas", "describeuserscramcredentials", "alteruserscramcredentials"),
    *("vote", "beginquorumepoch", "endquorumepoch", "describequorum", "alterpartition", "updatefeatures"),
    *("envelope", "fetchsnapshot", "describecluster", "describeproducers", "brokerregistration"),
    *("brokerheartbeat", "unregisterbroker", "describetransactions", "listtransactions", "allocateproducerids"),
    *("consumergroupheartbeat", "consumergroupdescribe", "controllerregistration"),
    *("gettelemetrysubscriptions", "pushtelemetry", "assignreplicastodirs", "listconfigresources"),
    *("describetopicpartitions", "sharegroupheartbeat", "sharegroupdescribe", "sharefetch"),
    *("shareacknowledge", "addraftvoter", "removeraftvoter", "updateraftvoter", "initializesharegroupstate"),
    *("readsharegroupstate", "writesharegroupstate", "deletesharegroupstate", "readsharegroupstatesummary"),
    *("streamsgroupheartbeat", "streamsgroupdescribe", "describesharegroupoffsets", "altersharegroupoffsets"),
    "deletesharegroupoffsets",
)

KEYS: Final = {name: key for key, name in enumerate(_NAMES)}
CILIUM_KEYS: Final = frozenset(range(34))  # what Cilium lets a rule name

# APIs whose requests may name topics: a rule with a topic allows these for no other one, and others as they are.
TOPIC_KEYS: Final = frozenset(
    (
        *(0, 1, 2, 3, 4, 5, 6, 8, 9, 19, 20, 21, 23, 24, 27, 28, 29, 30, 31, 32, 33, 34, 35, 37, 43, 44, 45, 46, 47),
        *(52, 53, 54, 55, 56, 59, 61, 68, 73, 75, 76, 78, 79, 83, 84, 85, 86, 87, 88, 90, 91, 92),
    )
)

# Those of them that may ask for all topics, and whose answer then lists topics: it is cut down to the allowed ones.
LISTING_KEYS: Final = frozenset((3, 9, 75, 90))

# The last version of each API, by its number, that can be read: of a later one nobody knows the topics.
_LAST: Final = (
    *(13, 18, 11, 13, 7, 4, 8, 3, 10, 10, 6, 9, 4, 5, 5, 6, 5, 1, 4, 7, 6, 2, 6, 4, 5, 4, 5, 2, 5, 3, 3, 3, 4, 2),
    *(2, 5, 2, 3, 3, 2, 2, 3, 2, 2, 1, 1, 0, 0, 1, 1, 0, 0, 2, 1, 1, 2, 3, 2, 0, 1, 2, 0, 4, 2, 0, 0, 2, 0, 1, 1),
    *(0, 0, 0, 0, 1, 0, 1, 1, 2, 2, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0),
)

# What producers and consumers of today ask for.
ROLES: Final = {
    "produce": (0, 3, 10, 18, 22, 24, 25, 26, 71, 72),
    "consume": (1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 18, 23, 28, 68, 71, 72, 76, 78, 79, 88),
}

# As Cilium has them (facts 5): producers that are idempotent or transactional, and newer group protocols, need rules.
CILIUM_ROLES: Final = {
    "produce": (0, 3, 18),
    "consume": (1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 18),
}


def key_of(name: str, *, cilium: bool = False) -> int | None:
    """The number of an API, by its name in any case; None for no such API. `cilium`: only those that Cilium knows."""
    key = KEYS.get(name.lower())
    return None if cilium and key not in CILIUM_KEYS else key


def last_version(key: int) -> int:
    """The last version of an API that can be read; -1 if none can."""
    return _LAST[key] if 0 <= key < len(_LAST) else -1


def name_of(key: int) -> str:
    """The name of an API, as flows show it; its number where it has none."""
    return _NAMES[key] if 0 <= key < len(_NAMES) else str(key)


def role_keys(role: str, *, cilium: bool = False) -> tuple[int, ...]:
    """The APIs of a role, sorted, by its name in any case. KeyError for no such role."""
    return (CILIUM_ROLES if cilium else ROLES)[role.lower()]
