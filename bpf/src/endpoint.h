/* Pods: which one a veth belongs to, which addresses it may send from, and the identities of everybody else. */
#ifndef DEFLECTOR_ENDPOINT_H
#define DEFLECTOR_ENDPOINT_H

#include "maps.h"
#include "parse.h"

/* NULL: the agent has not described this endpoint (yet), and nothing passes. */
static __always_inline const struct endpoint *find_endpoint(struct __sk_buff *skb)
{
	struct endpoint_key key = { .ifindex = skb->ifindex };

	return bpf_map_lookup_elem_((uintptr_t)MAP(ENDPOINTS), &key);
}

/* A pod sends from its own addresses. From a link-local address it reaches its gateway and groups on the link only. */
static __always_inline bool is_own_source(const struct endpoint *ep, const struct packet *p)
{
	const struct tuple *t = &p->outer;
	int i;

#pragma unroll
	for (i = 0; i < ENDPOINT_ADDRESSES; i++)
		if (ep->family[i] == t->family && same_address(&ep->address[i], &t->source))
			return true;
	if (t->family != 6)
		return false;
	if (is_link_local(&t->source))
		return is_link_local(&t->destination) || is_multicast6(&t->destination);
	return false;
}

/* NULL: no entry covers the address. */
static __always_inline const struct ipcache_value *find_peer(const struct address *address, u8 family)
{
	struct ipcache_key key = {};

	key.prefixlen = IPCACHE_FIXED_BITS + (family == 4 ? 32 : 128);
	key.family = family;
	key.address = *address;
	return bpf_map_lookup_elem_((uintptr_t)MAP(IPCACHE), &key);
}

/* Whether names say more of an address than this identity: the world's, or of a prefix that a policy speaks of. */
static __always_inline bool is_outside(u32 identity)
{
	return identity == IDENTITY_WORLD || identity == IDENTITY_WORLD_IPV4 || identity == IDENTITY_WORLD_IPV6 ||
	       (identity >= IDENTITY_FIRST_LOCAL && identity <= IDENTITY_LAST_LOCAL);
}

/* What this endpoint alone knows of an address. NULL: nothing. */
static __always_inline const struct ipcache_value *find_own(u32 ifindex, const struct address *address, u8 family)
{
	struct ipcache_key key = {};

	key.prefixlen = IPCACHE_FIXED_BITS + (family == 4 ? 32 : 128);
	key.family = family | FAMILY_OWNED;
	key.owner[0] = ifindex;
	key.owner[1] = ifindex >> 8;
	key.owner[2] = ifindex >> 16;
	key.address = *address;
	return bpf_map_lookup_elem_((uintptr_t)MAP(IPCACHE), &key);
}

/* An address that no entry covers is the world's. */
static __always_inline u32 identity_of(const struct address *address, u8 family)
{
	const struct ipcache_value *peer = find_peer(address, family);

	return peer ? peer->identity : IDENTITY_WORLD;
}

/* The source of a packet on its way to a pod is another pod of this node, but it did not come from there: from_pod has not
 * seen it. What the host itself sends (the proxy, with its clients' addresses) has come in nowhere. */
static __always_inline bool is_from_elsewhere(struct __sk_buff *skb, const struct ipcache_value *peer)
{
	return peer->ifindex && skb->ingress_ifindex && skb->ingress_ifindex != peer->ifindex;
}

static __always_inline bool has_false_source(struct __sk_buff *skb, const struct tuple *t)
{
	const struct ipcache_value *peer = find_peer(&t->source, t->family);

	return peer && is_from_elsewhere(skb, peer);
}

static __always_inline bool is_node(u32 identity)
{
	return identity == IDENTITY_HOST || identity == IDENTITY_REMOTE_NODE || identity == IDENTITY_KUBE_APISERVER;
}

/* Discovery that a router would not forward: between the pod and the host. A packet that only looks like discovery and
 * has another destination leaves the link, and is judged as any other. */
static __always_inline bool stays_on_link(const struct endpoint *ep, const struct packet *p)
{
	const struct address *to = &p->outer.destination;

	if (!is_link_local(to) && !is_link_multicast(to) && identity_of(to, 6) != IDENTITY_HOST)
		return false;
	return is_unspecified(&p->outer.source) || is_link_local(&p->outer.source) || is_own_source(ep, p);
}

#endif
