/* What userspace is told: drops, policy verdicts of new connections, and traces of a connection's first packets.
 *
 * The numbers are those of Hubble's CiliumEventType, DropReason and observation points. Every packet is counted in
 * `metrics`; events are for people, so they are bounded: a trace only where a connection begins, answers or ends, and
 * a drop of one tuple once per DENIED_NANOSECONDS. What a full ring or this bound kept back is counted too.
 */
#ifndef DEFLECTOR_EVENTS_H
#define DEFLECTOR_EVENTS_H

#include "ct.h"
#include "endpoint.h"
#include "maps.h"
#include "parse.h"

/* What happened to a packet, collected on its way, told at the end. */
struct story {
	u32 group;           /* identity of the endpoint; 0: unknown */
	u32 remote;          /* identity of the other side; 0: not looked up yet */
	u8 hook;             /* DIRECTION_EGRESS in from_pod, DIRECTION_INGRESS in to_pod, 0 in to_proxy */
	u8 direction;        /* of the connection; 0: unknown */
	u8 reply;            /* REPLY_* */
	u8 trace_reason;
	u8 observed;         /* observation point */
	u8 tell_trace;
	u8 tell_verdict;
	u8 match_type;
	s32 verdict;
	u16 proxy_port;
	u8 reason;           /* of the drop; 0: passed */
	u8 pad;
};

static __always_inline void count_kept_back(u32 which)
{
	u64 *counter = bpf_map_lookup_elem_((uintptr_t)MAP(COUNTERS), &which);

	if (counter)
		*counter += 1;
}

static __always_inline void count_packet(struct __sk_buff *skb, u8 reason, u8 direction)
{
	u32 index = (u32)reason * METRIC_DIRECTIONS + (direction & (METRIC_DIRECTIONS - 1));
	struct metric *metric = bpf_map_lookup_elem_((uintptr_t)MAP(METRICS), &index);

	if (!metric)
		return;
	metric->packets += 1;
	metric->bytes += skb->len;
}

static __always_inline void tell(struct __sk_buff *skb, const struct packet *p, struct story *s, u8 type, u8 sub_type)
{
	struct event *e = bpf_ringbuf_reserve(MAP(EVENTS), sizeof(*e), 0);
	bool sends = s->hook == DIRECTION_EGRESS;

	if (!e) {
		count_kept_back(COUNTER_EVENTS_LOST);
		return;
	}
	e->version = EVENT_VERSION;
	e->type = type;
	e->sub_type = sub_type;
	e->trace_reason = type == EVENT_TRACE ? s->trace_reason : 0;
	e->direction = s->direction;
	e->reply = s->reply;
	e->family = p->outer.family;
	e->protocol = p->outer.protocol;
	e->time = bpf_ktime_get_ns();
	e->endpoint = s->hook ? skb->ifindex : 0;
	e->ifindex = skb->ifindex;
	e->source_identity = sends ? s->group : s->remote;
	e->destination_identity = sends ? s->remote : s->group;
	e->source = p->outer.source;
	e->destination = p->outer.destination;
	e->source_port = is_icmp(p->outer.protocol) ? 0 : bpf_ntohs(p->outer.source_port);
	e->destination_port = is_icmp(p->outer.protocol) ? 0 : bpf_ntohs(p->outer.destination_port);
	e->tcp_flags = p->tcp_flags;
	e->icmp_type = p->icmp_type;
	e->icmp_code = p->icmp_code;
	e->match_type = type == EVENT_VERDICT ? s->match_type : 0;
	e->verdict = type == EVENT_VERDICT ? s->verdict : 0;
	e->length = skb->len;
	e->proxy_port = s->proxy_port;
	e->pad = 0;
	if (bpf_skb_load_bytes(skb, 6, e->source_mac, 6) < 0)
		__builtin_memset(e->source_mac, 0, 6);
	if (bpf_skb_load_bytes(skb, 0, e->destination_mac, 6) < 0)
		__builtin_memset(e->destination_mac, 0, 6);
	bpf_ringbuf_submit(e, 0);
}

/* Whether this drop is told. `first` is set when the tuple has not been dropped for a while. */
static __always_inline bool may_tell_drop(struct __sk_buff *skb, const struct packet *p, const struct story *s)
{
	struct denied_value fresh = { .told = bpf_ktime_get_ns() };
	struct denied_value *last;
	struct ct_key key;

	ct_key(&key, p, skb->ifindex, s->hook);
	last = bpf_map_lookup_elem_((uintptr_t)MAP(DENIED), &key);
	if (last && fresh.told - last->told < DENIED_NANOSECONDS) {
		count_kept_back(COUNTER_EVENTS_BOUNDED);
		return false;
	}
	bpf_map_update_elem_((uintptr_t)MAP(DENIED), &key, &fresh, BPF_ANY);
	return true;
}

/* The end of every packet's way: count it, and tell what is worth telling. */
static __always_inline void conclude(struct __sk_buff *skb, const struct packet *p, struct story *s)
{
	count_packet(skb, s->reason, s->hook);
	if (s->reason) {
		if (!may_tell_drop(skb, p, s))
			return;
	} else if (!s->tell_trace && !s->tell_verdict) {
		return;
	}
	if (!s->remote && p->outer.family)
		s->remote = s->hook == DIRECTION_EGRESS ? identity_of(&p->outer.destination, p->outer.family)
							: identity_of(&p->outer.source, p->outer.family);
	if (s->tell_verdict)
		tell(skb, p, s, EVENT_VERDICT, 0);
	if (s->reason)
		tell(skb, p, s, EVENT_DROP, s->reason);
	else if (s->tell_trace)
		tell(skb, p, s, EVENT_TRACE, s->observed);
}

#endif
