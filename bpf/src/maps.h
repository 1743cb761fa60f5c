/* The maps: what the agent writes, what the kernel remembers, and the shape of every key and value.
 *
 * bpf/layout.py describes the same structs for Python. The loader compiles this file together with assertions that
 * layout.py generates (size and offset of every member), so the two cannot drift apart unnoticed.
 *
 * The maps themselves are made and pinned by the loader, not by this file: a program names a map by its number in
 * layout.py (MAP_NUMBER_*), and the loader puts the descriptor of the pinned map in its place. So maps outlive
 * programs, and a program that was compiled once can be loaded many times.
 *
 * An address has 16 bytes. An IPv4 address takes the first four, the rest is zero; `family` (4 or 6) tells them apart.
 */
#ifndef DEFLECTOR_MAPS_H
#define DEFLECTOR_MAPS_H

#define MAP(name) ((void *)bpf_pseudo_fd(1, MAP_NUMBER_##name))

struct address {
	u32 word[4];
};

/* endpoints: a pod, found by the interface index of its host-side veth */
struct endpoint_key {
	u32 ifindex;
};

struct endpoint {
	u32 group;
	u8 enforced; /* ENFORCED_INGRESS, ENFORCED_EGRESS */
	u8 pad[3];
	u8 family[ENDPOINT_ADDRESSES]; /* 0: the place is empty */
	struct address address[ENDPOINT_ADDRESSES];
};

/* ipcache: longest prefix of an address -> identity. What only one endpoint knows of an address (a name that it has asked
 * for) stands apart, under FAMILY_OWNED and the interface index of that endpoint. */
struct ipcache_key {
	u32 prefixlen; /* of what follows: IPCACHE_FIXED_BITS + the prefix length of the address */
	u8 family;
	u8 owner[3]; /* least significant byte first; 0: everybody */
	struct address address;
};

struct ipcache_value {
	u32 identity;
	u32 ifindex; /* of a pod of this node: where its packets come from; else 0 */
};

/* policy: longest prefix on protocol and port, for one group, identity and direction */
struct policy_key {
	u32 prefixlen; /* POLICY_BITS_ANY: every protocol; POLICY_BITS_PROTOCOL: every port; up to POLICY_BITS_PORT */
	u32 group;
	u32 identity; /* 0: every identity */
	u8 direction;
	u8 protocol;
	__be16 port;
};

struct policy_value {
	u8 verdict; /* VERDICT_*; anything else denies */
	u8 scope;   /* SCOPE_*: how much of protocol and port the entry names */
	u8 reason;  /* REASON_* of a denial */
	u8 pad;
	u16 proxy_port; /* host order; 0 unless VERDICT_REDIRECT */
	u16 pad2;
};

/* services: a frontend that the packet still carries when egress policy is judged by backend */
struct service_key {
	struct address address;
	__be16 port;
	u8 protocol;
	u8 family;
};

struct service_value {
	u32 identity; /* 0: none, or backends of different identities */
	__be16 target_port;
	u16 pad;
};

/* ct: one connection as one endpoint sees it */
struct ct_key {
	struct address local;
	struct address remote;
	u32 ifindex;
	__be16 local_port;
	__be16 remote_port;
	u8 protocol;
	u8 family;
	u16 pad;
};

struct ct_value {
	u64 expires; /* ns, CLOCK_MONOTONIC */
	u8 direction; /* who opened it: DIRECTION_INGRESS, DIRECTION_EGRESS */
	u8 flags;     /* CT_* */
	u8 forward;   /* TCP flags seen from the side that opened it */
	u8 reply;     /* TCP flags seen from the other side */
	u16 proxy_port;
	u16 pad;
	u32 generation; /* of the policy that has judged it; 0: it is to be asked */
	u32 pad2;
};

/* fragments: the ports of a datagram whose first fragment has passed */
struct fragment_key {
	struct address source;
	struct address destination;
	u32 id;
	u32 ifindex;
	u8 protocol;
	u8 family;
	u16 pad;
};

struct fragment_value {
	__be16 source_port;
	__be16 destination_port;
	u8 icmp_type;
	u8 icmp_code;
	u16 pad;
};

/* namespaces: where a pod's sockets are, by the interface index of its host-side veth (struct endpoint_key) */
struct namespace {
	s32 id; /* as the network namespace of the host numbers it */
};

/* denied: when a drop of this tuple was last told, so that a flood is counted instead of told */
struct denied_value {
	u64 told; /* ns, CLOCK_MONOTONIC */
};

/* metrics: index = reason * 4 + direction; reason 0 is what passed */
struct metric {
	u64 packets;
	u64 bytes;
};

/* settings: one entry, written by the agent */
struct settings {
	u32 helper;     /* ifindex of the helper device; 0: not made yet, redirects are dropped */
	u32 generation; /* of policy, peers and services: another one after each change; 0: never trust a verdict of before */
};

/* events: what userspace is told, see events.h. Version EVENT_VERSION. */
struct event {
	u8 version;
	u8 type;     /* EVENT_DROP, EVENT_TRACE, EVENT_VERDICT: numbers of CiliumEventType */
	u8 sub_type; /* drop reason or observation point */
	u8 trace_reason;
	u8 direction; /* of the connection, as the endpoint sees it; 0: unknown */
	u8 reply;     /* REPLY_* */
	u8 family;
	u8 protocol;
	u64 time; /* ns, CLOCK_MONOTONIC */
	u32 endpoint;
	u32 ifindex; /* where it was seen */
	u32 source_identity;
	u32 destination_identity;
	struct address source;
	struct address destination;
	u16 source_port; /* host order */
	u16 destination_port;
	u8 tcp_flags;
	u8 icmp_type;
	u8 icmp_code;
	u8 match_type; /* EVENT_VERDICT: MATCH_* */
	s32 verdict;   /* EVENT_VERDICT: -reason, 0 or the proxy port */
	u32 length;    /* bytes with the link header */
	u16 proxy_port;
	u8 source_mac[6];
	u8 destination_mac[6];
	u16 pad;
};

#endif
