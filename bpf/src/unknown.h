/* Who opened a TCP connection that connection tracking knows nothing of, and whether the proxy has it.
 *
 * Taken for the pod's own, an answer of a server would make an entry that lets everything of its client pass. So the pod's
 * sockets are asked, in the pod's own network namespace; where they cannot be (no namespace known, a guest kernel in
 * between), the ports tell, and doubt means that the peer opened it.
 */
#ifndef DEFLECTOR_UNKNOWN_H
#define DEFLECTOR_UNKNOWN_H

#include "ct.h"
#include "maps.h"
#include "proxy.h"

#define ROLE_NONE 0
#define ROLE_UPSTREAM 1 /* the proxy opened it, on behalf of the other side of this packet */
#define ROLE_ACCEPTED 2 /* the proxy accepted it from the sender of this packet */

/* What the host's socket with this tuple is at this hook. The marks are those of docs/architecture.md, section B; a
 * socket that is only half there (a request, TIME_WAIT) has none to read. */
static __always_inline u8 role_of_socket(struct __sk_buff *skb, const struct packet *p, u8 hook)
{
	bool sends = hook == DIRECTION_EGRESS;
	struct bpf_sock *sk, *full;
	u8 role = ROLE_NONE;
	u32 mark;

	if (p->flow.protocol == PROTO_UDP) /* the doors of a proxy accept nothing */
		return upstream_mark(skb, p) == (sends ? MARK_INGRESS_UPSTREAM : MARK_EGRESS_UPSTREAM) ? ROLE_UPSTREAM
												       : ROLE_NONE;
	if (p->flow.protocol != PROTO_TCP || p->fragmented == 2)
		return ROLE_NONE;
	sk = own_socket(skb, p);
	if (!sk)
		return ROLE_NONE;
	full = bpf_sk_fullsock(sk);
	if (full) {
		mark = full->mark & MARK_MASK;
		if (mark == (sends ? MARK_INGRESS_UPSTREAM : MARK_EGRESS_UPSTREAM))
			role = ROLE_UPSTREAM;
		else if (mark == (sends ? MARK_EGRESS_ANSWER : MARK_INGRESS_ANSWER))
			role = ROLE_ACCEPTED;
	}
	bpf_sk_release(sk);
	return role;
}

/* The state of the pod's socket for local and remote end; 0: none. A remote port of 0 finds nothing but listeners. */
static __always_inline u32 pod_socket(struct __sk_buff *skb, const struct ct_key *key, __be16 remote_port, s32 namespace)
{
	struct bpf_sock_tuple st = {};
	struct tuple t = {
		.source = key->remote,
		.destination = key->local,
		.source_port = remote_port,
		.destination_port = key->local_port,
		.family = key->family,
	};
	struct bpf_sock *sk;
	u32 state;

	socket_tuple(&st, &t);
	sk = lookup(skb, &st, t.family, namespace);
	if (!sk)
		return 0;
	state = sk->state;
	bpf_sk_release(sk);
	return state;
}

/* DIRECTION_EGRESS: the pod opened it. Both pieces of evidence must agree on that, if both speak: a server that has closed
 * its listener still has its well-known port. */
static __always_inline u8 who_opened(struct __sk_buff *skb, const struct ct_key *key, u8 hook)
{
	struct endpoint_key place = { .ifindex = key->ifindex };
	struct namespace *found = bpf_map_lookup_elem_((uintptr_t)MAP(NAMESPACES), &place);
	bool local = bpf_ntohs(key->local_port) >= EPHEMERAL_PORT;
	bool remote = bpf_ntohs(key->remote_port) >= EPHEMERAL_PORT;
	u32 state = found ? pod_socket(skb, key, key->remote_port, found->id) : 0;
	bool own = state && state != TCP_LISTEN_STATE;

	if (hook == DIRECTION_INGRESS && !own)
		return DIRECTION_INGRESS; /* nobody waits for an answer */
	if (found && pod_socket(skb, key, 0, found->id))
		return DIRECTION_INGRESS;
	if (local != remote)
		return local ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	return own ? DIRECTION_EGRESS : DIRECTION_INGRESS;
}

#endif
