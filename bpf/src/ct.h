/* Connection tracking: one entry per endpoint and tuple, with the side that opened it, so that replies pass.
 *
 * A TCP segment with SYN and without ACK is never a reply: it is judged in its own direction, whatever an entry says.
 * Of a connection that is older than its entry (programs loaded late, entry evicted) the first packet seen may come from
 * either side. For TCP unknown.h finds out which; else it is the one that opens. What can only be an answer (SYN+ACK,
 * RST, echo reply) makes no entry.
 */
#ifndef DEFLECTOR_CT_H
#define DEFLECTOR_CT_H

#include "maps.h"
#include "parse.h"

#define SECOND 1000000000ULL

static __always_inline bool is_echo_request(const struct packet *p)
{
	return is_icmp(p->outer.protocol) && p->icmp_type == (p->outer.family == 4 ? 8 : 128);
}

static __always_inline bool is_echo_answer(const struct packet *p)
{
	return is_icmp(p->outer.protocol) && p->icmp_type == (p->outer.family == 4 ? 0 : 129);
}

/* Never an answer, whatever an entry says. */
static __always_inline bool opens(const struct packet *p)
{
	if (p->outer.protocol == PROTO_TCP)
		return (p->tcp_flags & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN;
	return is_echo_request(p);
}

/* Of ICMP, echo only: the other types have nothing that tells one conversation from another, and each packet of theirs is
 * judged for itself. */
static __always_inline bool is_tracked(const struct packet *p)
{
	return !is_icmp(p->outer.protocol) || p->related || is_echo_request(p) || is_echo_answer(p);
}

/* Nobody opens a connection with this: it makes no entry. */
static __always_inline bool only_answers(const struct packet *p)
{
	if (p->related)
		return true;
	if (p->outer.protocol == PROTO_TCP)
		return p->tcp_flags & FLAG_RST || (p->tcp_flags & (FLAG_SYN | FLAG_ACK)) == (FLAG_SYN | FLAG_ACK);
	return is_echo_answer(p) || !is_tracked(p);
}

static __always_inline void ct_key(struct ct_key *key, const struct packet *p, u32 ifindex, u8 direction)
{
	if (direction == DIRECTION_EGRESS) {
		key->local = p->flow.source;
		key->remote = p->flow.destination;
		key->local_port = p->flow.source_port;
		key->remote_port = p->flow.destination_port;
	} else {
		key->local = p->flow.destination;
		key->remote = p->flow.source;
		key->local_port = p->flow.destination_port;
		key->remote_port = p->flow.source_port;
	}
	key->ifindex = ifindex;
	key->protocol = p->flow.protocol;
	key->family = p->outer.family;
	key->pad = 0;
}

static __always_inline struct ct_value *ct_find(const struct ct_key *key, u64 now)
{
	struct ct_value *ct = bpf_map_lookup_elem_((uintptr_t)MAP(CT), (void *)key);

	if (ct && ct->expires <= now)
		ct = NULL;
	/* else the compiler remembers the comparison instead of the pointer, and the verifier loses track of it */
	asm volatile("" : "+r"(ct));
	return ct;
}

static __always_inline u64 lifetime(u8 protocol, u8 forward, u8 reply)
{
	if (protocol == PROTO_TCP) {
		if (((forward | reply) & FLAG_RST) || (forward & reply & FLAG_FIN))
			return CT_SECONDS_CLOSING * SECOND;
		return reply && forward & FLAG_ACK ? CT_SECONDS_TCP * SECOND : CT_SECONDS_SYN * SECOND;
	}
	return is_icmp(protocol) ? CT_SECONDS_ICMP * SECOND : CT_SECONDS_UDP * SECOND;
}

/* TCP flags that a trace is worth; the lowest spare bit stands for "a packet was seen" where there are no flags. */
#define SEEN 0x08
static __always_inline u8 telling_flags(const struct packet *p)
{
	return SEEN | (p->tcp_flags & (FLAG_SYN | FLAG_FIN | FLAG_RST)) | (p->tcp_flags & FLAG_ACK);
}

/* Note a packet of a known connection. True when it is worth a trace: first of its side, or first with SYN, FIN, RST. */
static __always_inline bool ct_note(struct ct_value *ct, const struct packet *p, bool reply, u64 now)
{
	u8 told = reply ? ct->reply : ct->forward;
	u8 seen = told | telling_flags(p);
	u64 expires;

	if (seen != told) {
		if (reply)
			ct->reply = seen;
		else
			ct->forward = seen;
	}
	expires = now + lifetime(p->flow.protocol, ct->forward, ct->reply);
	/* written once a second, or at once when the end comes nearer, to keep the cache line shared */
	if (expires > ct->expires + SECOND || expires < ct->expires)
		ct->expires = expires;
	return (seen & ~FLAG_ACK) != (told & ~FLAG_ACK);
}

static __always_inline bool is_closing(const struct ct_value *ct)
{
	return (ct->forward | ct->reply) & (FLAG_FIN | FLAG_RST);
}

/* Begin an entry with a packet of the side that opened, or with an answer. 0, or the reason why the packet is dropped. */
static __always_inline int ct_open(const struct ct_key *key, const struct packet *p, struct ct_value *value, bool reply,
				   u64 now)
{
	value->forward = reply ? 0 : telling_flags(p);
	value->reply = reply ? telling_flags(p) : 0;
	value->expires = now + lifetime(key->protocol, value->forward, value->reply);
	if (bpf_map_update_elem_((uintptr_t)MAP(CT), (void *)key, value, BPF_ANY) < 0)
		return REASON_CT_INSERTION_FAILED;
	return 0;
}

#endif
