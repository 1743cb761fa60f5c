/* Later fragments have no ports and no ICMP type: they borrow those of the first, if it came this way and passed. */
#ifndef DEFLECTOR_FRAGMENTS_H
#define DEFLECTOR_FRAGMENTS_H

#include "maps.h"
#include "parse.h"

static __always_inline void fragment_key(struct fragment_key *key, const struct packet *p, u32 ifindex)
{
	key->source = p->outer.source;
	key->destination = p->outer.destination;
	key->id = p->fragment;
	key->ifindex = ifindex;
	key->protocol = p->outer.protocol;
	key->family = p->outer.family;
	key->pad = 0;
}

/* 0, or the reason why the packet is dropped. */
static __always_inline int fill_ports(struct __sk_buff *skb, struct packet *p)
{
	struct fragment_key key;
	struct fragment_value *found;

	if (!p->fragmented || !(has_ports(p->outer.protocol) || is_icmp(p->outer.protocol)))
		return 0;
	fragment_key(&key, p, skb->ifindex);
	if (p->fragmented == 1) {
		struct fragment_value value = {
			.source_port = p->outer.source_port,
			.destination_port = p->outer.destination_port,
			.icmp_type = p->icmp_type,
			.icmp_code = p->icmp_code,
		};

		bpf_map_update_elem_((uintptr_t)MAP(FRAGMENTS), &key, &value, BPF_ANY);
		return 0;
	}
	found = bpf_map_lookup_elem_((uintptr_t)MAP(FRAGMENTS), &key);
	if (!found)
		return REASON_FRAGMENT_NOT_FOUND;
	p->outer.source_port = found->source_port;
	p->outer.destination_port = found->destination_port;
	p->icmp_type = found->icmp_type;
	p->icmp_code = found->icmp_code;
	p->flow = p->outer;
	return 0;
}

#endif
