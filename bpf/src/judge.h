/* One packet of one endpoint: reply or new, whose, and what the policy says. Used by both hooks of a veth.
 *
 * `hook` is a constant in each caller: DIRECTION_EGRESS where the pod sends, DIRECTION_INGRESS where it receives.
 */
#ifndef DEFLECTOR_JUDGE_H
#define DEFLECTOR_JUDGE_H

#include "ct.h"
#include "endpoint.h"
#include "events.h"
#include "maps.h"
#include "parse.h"
#include "policy.h"
#include "proxy.h"
#include "unknown.h"

/* What becomes of a packet. A drop has a reason in the story. */
#define FATE_PASS 0
#define FATE_PROXY 1
#define FATE_DROP 2

static __always_inline int drop(struct story *s, u8 reason)
{
	s->reason = reason;
	s->tell_trace = 0;
	return FATE_DROP;
}

static __always_inline int to_proxy_fate(struct story *s, u16 port)
{
	s->observed = OBSERVED_TO_PROXY;
	s->proxy_port = port;
	return FATE_PROXY;
}

static __always_inline void reply_story(struct story *s, u8 direction)
{
	s->direction = direction;
	s->reply = REPLY_YES;
	s->trace_reason = TRACE_REPLY;
}

/* A reply on a known connection passes; if the connection is the proxy's, to the proxy. */
static __always_inline int judge_reply(struct __sk_buff *skb, const struct packet *p, struct story *s,
				       struct ct_value *ct, u64 now)
{
	reply_story(s, ct->direction);
	s->tell_trace = ct_note(ct, p, true, now);
	if (s->hook == DIRECTION_EGRESS && ct->flags & CT_FROM_PROXY)
		return to_proxy_fate(s, 0); /* the pod answers the upstream socket of an ingress slot */
	if (ct->flags & CT_PROXIED && (s->hook == DIRECTION_INGRESS || p->outer.protocol == PROTO_UDP)) {
		/* The proxy's own answers carry a mark and do not come here. What does is from the real destination to
		 * an upstream socket that happens to have the same port, or stray, or nobody has asked for it. (A TCP
		 * server may still have to say that it knows nothing of a connection.) */
		if (has_own_socket(skb, p))
			return to_proxy_fate(s, 0);
		return drop(s, REASON_SOCKET_LOOKUP_FAILED);
	}
	return FATE_PASS;
}

/* An ICMP error about a known flow passes, or path MTU discovery would fail. If the socket on this side of the flow is
 * the proxy's, it goes to the host's stack, which finds the socket by the packet inside.
 * Returns -1 if the flow is not known. */
static __always_inline int judge_related(struct __sk_buff *skb, const struct packet *p, struct story *s,
					 struct ct_value *ct)
{
	s->trace_reason = TRACE_RELATED;
	s->reply = REPLY_NO;
	if (ct) {
		s->direction = ct->direction;
		s->tell_trace = 1;
		if (ct->flags & (s->hook == ct->direction ? CT_PROXIED : CT_FROM_PROXY))
			return to_proxy_fate(s, 0);
		return FATE_PASS;
	}
	if (role_of_socket(skb, p, s->hook) != ROLE_NONE)
		return to_proxy_fate(s, 0);
	return -1;
}

/* Ask the policy of one direction. Against the hook's own direction the packet is an answer, and what it answers to is
 * judged: the peer is the same, the port is that of the side that was opened to. Fills the story's identity. */
static __always_inline int ask_policy(struct __sk_buff *skb, const struct packet *p, struct story *s,
				      const struct endpoint *ep, u8 direction, struct decision *d)
{
	u8 bit = direction == DIRECTION_EGRESS ? ENFORCED_EGRESS : ENFORCED_INGRESS;
	__be16 port = direction == s->hook ? p->outer.destination_port : p->outer.source_port;
	const struct address *peer = s->hook == DIRECTION_EGRESS ? &p->outer.destination : &p->outer.source;
	const struct ipcache_value *found;
	int reason;

	d->verdict = VERDICT_ALLOW;
	d->reason = 0;
	d->match_type = MATCH_NONE;
	d->proxy_port = 0;
	if (!(ep->enforced & bit))
		return 0;
	if (direction == DIRECTION_EGRESS && has_ports(p->outer.protocol)) {
		reason = translate_service(peer, &p->outer, &s->remote, &port);
		if (reason)
			return reason;
	}
	if (!s->remote) {
		found = find_peer(peer, p->outer.family);
		s->remote = found ? found->identity : IDENTITY_WORLD;
		if (direction == DIRECTION_EGRESS && is_outside(s->remote)) {
			const struct ipcache_value *own = find_own(skb->ifindex, peer, p->outer.family);

			if (own)
				s->remote = own->identity;
		}
		if (found && s->hook == DIRECTION_INGRESS && is_from_elsewhere(skb, found))
			return REASON_INVALID_SOURCE;
	}
	if (is_icmp(p->outer.protocol))
		port = bpf_htons(p->icmp_type);
	else if (!has_ports(p->outer.protocol))
		port = 0;
	decide(d, ep->group, s->remote, direction, p->outer.protocol, port);
	return d->verdict == VERDICT_DENY ? d->reason : 0;
}

static __always_inline u32 current_generation(void)
{
	u32 zero = 0;
	struct settings *settings = bpf_map_lookup_elem_((uintptr_t)MAP(SETTINGS), &zero);

	return settings ? settings->generation : 0;
}

/* Whether this packet would be judged as the last one of its connection was: nothing has changed since, and it says
 * nothing new. Not for ICMP, whose type is policy but not part of the connection's key. */
static __always_inline bool is_judged(const struct packet *p, const struct ct_value *ct, u8 hook, u32 generation)
{
	return generation && ct->generation == generation && ct->direction == hook && has_ports(p->outer.protocol) &&
	       !(p->tcp_flags & (FLAG_SYN | FLAG_FIN | FLAG_RST));
}

static __always_inline int pass_judged(const struct packet *p, struct story *s, struct ct_value *ct, u64 now)
{
	s->direction = s->hook;
	s->reply = REPLY_NO;
	s->trace_reason = TRACE_ESTABLISHED;
	s->tell_trace = ct_note(ct, p, false, now);
	return ct->flags & CT_PROXIED ? to_proxy_fate(s, ct->proxy_port) : FATE_PASS;
}

/* A packet of the side that opens (or opened) the connection: the policy is asked, for each of them that comes after a
 * change. `generation` was read before that, so a change that comes meanwhile asks again.
 * `accepted`: nothing is known of the connection, but the proxy has accepted it. */
static __always_inline int judge_forward(struct __sk_buff *skb, const struct packet *p, struct story *s,
					 const struct endpoint *ep, const struct ct_key *key, struct ct_value *ct,
					 bool accepted, u64 now)
{
	u32 generation = current_generation();
	bool tcp = p->outer.protocol == PROTO_TCP;
	bool proxied = tcp || p->outer.protocol == PROTO_UDP; /* what proxies speak */
	bool fresh = !ct || ct->direction != s->hook || (opens(p) && is_closing(ct));
	struct ct_value value = { .direction = s->hook, .generation = generation };
	struct decision d;
	int reason;

	if (ct && !fresh && is_judged(p, ct, s->hook, generation))
		return pass_judged(p, s, ct, now);
	s->direction = s->hook;
	s->reply = REPLY_NO;
	s->trace_reason = fresh ? TRACE_NEW : TRACE_ESTABLISHED;
	reason = ask_policy(skb, p, s, ep, s->hook, &d);
	s->match_type = d.match_type;
	s->tell_verdict = fresh && ep->enforced & (s->hook == DIRECTION_EGRESS ? ENFORCED_EGRESS : ENFORCED_INGRESS);
	if (!reason && d.verdict == VERDICT_REDIRECT && !proxied)
		reason = REASON_PROXY_PROTOCOL;
	if (reason) {
		s->reply = REPLY_UNKNOWN;
		s->verdict = -(s32)reason;
		return drop(s, reason);
	}
	if (d.verdict == VERDICT_REDIRECT) {
		s->verdict = d.proxy_port;
		value.flags = CT_PROXIED;
		value.proxy_port = d.proxy_port;
	} else if (accepted) {
		value.flags = CT_PROXIED; /* allowed now, but the proxy has it: it stays there to its end */
	} else if (tcp && ct && !fresh && ct->flags & CT_PROXIED && has_own_socket(skb, p)) {
		value.flags = CT_PROXIED;
		value.proxy_port = ct->proxy_port;
	}
	if (fresh) {
		s->tell_trace = 1;
		if (!only_answers(p)) {
			reason = ct_open(key, p, &value, false, now);
			if (reason)
				return drop(s, reason);
		}
	} else {
		s->tell_trace = ct_note(ct, p, false, now);
		ct->flags = value.flags;
		ct->proxy_port = value.proxy_port;
		ct->generation = generation;
	}
	if (value.flags & CT_PROXIED)
		return to_proxy_fate(s, value.proxy_port);
	return FATE_PASS;
}

/* The first packet that is seen of a connection is an answer: the connection must be allowed as it was opened. If it
 * should be the proxy's by now, the answer waits until the side that opened it speaks, and is reset. */
static __always_inline int judge_backward(struct __sk_buff *skb, const struct packet *p, struct story *s,
					  const struct endpoint *ep, const struct ct_key *key, u8 direction, u64 now)
{
	struct ct_value value = { .direction = direction };
	struct decision d;
	int reason;

	reply_story(s, direction);
	reason = ask_policy(skb, p, s, ep, direction, &d);
	if (!reason && d.verdict == VERDICT_REDIRECT)
		reason = REASON_SOCKET_LOOKUP_FAILED;
	if (!reason)
		reason = ct_open(key, p, &value, true, now);
	if (reason) {
		s->reply = REPLY_UNKNOWN;
		return drop(s, reason);
	}
	s->tell_trace = 1;
	return FATE_PASS;
}

/* A TCP segment that opens nothing, of a connection that is not known: older than the programs, or its entry was
 * evicted. Whose is it? */
static __always_inline int judge_unknown(struct __sk_buff *skb, const struct packet *p, struct story *s,
					 const struct endpoint *ep, const struct ct_key *key, u64 now)
{
	u8 role = role_of_socket(skb, p, s->hook);
	u8 direction;

	if (role == ROLE_UPSTREAM)
		return to_proxy_fate(s, 0); /* an answer to the proxy: judged when the proxy opened it */
	if (role == ROLE_NONE && !only_answers(p)) {
		direction = who_opened(skb, key, s->hook);
		if (direction != s->hook)
			return judge_backward(skb, p, s, ep, key, direction, now);
	}
	return judge_forward(skb, p, s, ep, key, NULL, role == ROLE_ACCEPTED, now);
}

/* Whether a datagram that nobody has asked for, as far as connection tracking knows, was asked for by the proxy. What
 * the proxy sends need not have passed the programs of its pod, so there is no entry to tell; there may be one of an
 * unanswered datagram from the other side, which must not hide it. */
static __always_inline bool answers_proxy(struct __sk_buff *skb, const struct packet *p, const struct story *s,
					  const struct ct_value *ct)
{
	if (p->outer.protocol != PROTO_UDP || (ct && (ct->reply || s->hook == DIRECTION_EGRESS)))
		return false;
	return role_of_socket(skb, p, s->hook) == ROLE_UPSTREAM;
}

static __always_inline int judge(struct __sk_buff *skb, const struct packet *p, struct story *s,
				 const struct endpoint *ep)
{
	u64 now = bpf_ktime_get_ns();
	struct ct_value *ct;
	struct ct_key key;
	int fate;

	ct_key(&key, p, skb->ifindex, s->hook);
	ct = is_tracked(p) ? ct_find(&key, now) : NULL;
	if (p->related) {
		fate = judge_related(skb, p, s, ct);
		if (fate >= 0)
			return fate;
		ct = NULL;
	} else if (ct && ct->direction != s->hook && !opens(p)) {
		return judge_reply(skb, p, s, ct, now);
	} else if (!ct && p->outer.protocol == PROTO_TCP && !opens(p)) {
		return judge_unknown(skb, p, s, ep, &key, now);
	} else if (answers_proxy(skb, p, s, ct)) {
		if (s->hook == DIRECTION_INGRESS && has_false_source(skb, &p->outer))
			return drop(s, REASON_INVALID_SOURCE);
		return to_proxy_fate(s, 0);
	}
	return judge_forward(skb, p, s, ep, &key, ct, false, now);
}

/* A packet of the proxy's on its way to the pod: remember what the answers are, and let it pass. */
static __always_inline int pass_upstream(struct __sk_buff *skb, const struct packet *p, struct story *s)
{
	struct ct_value value = { .direction = DIRECTION_INGRESS, .flags = CT_FROM_PROXY };
	u64 now = bpf_ktime_get_ns();
	struct ct_value *ct;
	struct ct_key key;
	int reason;

	s->direction = DIRECTION_INGRESS;
	s->reply = REPLY_NO;
	ct_key(&key, p, skb->ifindex, s->hook);
	ct = ct_find(&key, now);
	if (ct && ct->direction == DIRECTION_INGRESS && ct->flags & CT_FROM_PROXY && !(opens(p) && is_closing(ct))) {
		s->trace_reason = TRACE_ESTABLISHED;
		s->tell_trace = ct_note(ct, p, false, now);
		return FATE_PASS;
	}
	s->trace_reason = TRACE_NEW;
	s->tell_trace = 1;
	if (only_answers(p))
		return FATE_PASS;
	reason = ct_open(&key, p, &value, false, now);
	return reason ? drop(s, reason) : FATE_PASS;
}

/* An answer of the egress slot's listener to its own pod. */
static __always_inline int pass_answer(struct __sk_buff *skb, const struct packet *p, struct story *s)
{
	u64 now = bpf_ktime_get_ns();
	struct ct_value *ct;
	struct ct_key key;

	reply_story(s, DIRECTION_EGRESS);
	ct_key(&key, p, skb->ifindex, s->hook);
	ct = ct_find(&key, now);
	if (ct && ct->direction == DIRECTION_EGRESS)
		s->tell_trace = ct_note(ct, p, true, now);
	return FATE_PASS;
}

#endif
