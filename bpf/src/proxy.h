/* The way to the proxy, in one place.
 *
 * bpf_sk_assign works on tc ingress only, and packets towards a pod pass the egress hook of its veth. So every packet
 * that is the proxy's is sent to the ingress of a helper device (to_helper), where deliver() finds its socket. The
 * mark carries the proxy port in its upper half on this one hop; a mark survives bpf_redirect within a namespace.
 *
 * A pod's address is never local to the host, so an established socket bound to it is the proxy's.
 */
#ifndef DEFLECTOR_PROXY_H
#define DEFLECTOR_PROXY_H

#include "maps.h"
#include "parse.h"

#define TCP_TIME_WAIT_STATE 6
#define TCP_LISTEN_STATE 10

/* Fills the tuple of `t`; returns its length. The source is the remote side, the destination the local one. */
static __always_inline int socket_tuple(struct bpf_sock_tuple *st, const struct tuple *t)
{
	if (t->family == 4) {
		st->ipv4.saddr = t->source.word[0];
		st->ipv4.daddr = t->destination.word[0];
		st->ipv4.sport = t->source_port;
		st->ipv4.dport = t->destination_port;
		return sizeof(st->ipv4);
	}
	copy_address((struct address *)st->ipv6.saddr, t->source.word);
	copy_address((struct address *)st->ipv6.daddr, t->destination.word);
	st->ipv6.sport = t->source_port;
	st->ipv6.dport = t->destination_port;
	return sizeof(st->ipv6);
}

/* `namespace` is the id of a network namespace as this one numbers it, or BPF_F_CURRENT_NETNS. */
static __always_inline struct bpf_sock *lookup(struct __sk_buff *skb, struct bpf_sock_tuple *st, u8 family, s32 namespace)
{
	/* the length must be a constant on each path for the verifier */
	if (family == 4)
		return bpf_skc_lookup_tcp(skb, st, sizeof(st->ipv4), namespace, 0);
	return bpf_skc_lookup_tcp(skb, st, sizeof(st->ipv6), namespace, 0);
}

/* The connection's own socket: established, opening (also a request socket) or closing. Release it.
 * The lookup also finds listeners on the packet's own port; these are somebody else's. */
static __always_inline struct bpf_sock *own_socket(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple st = {};
	struct bpf_sock *sk;

	socket_tuple(&st, &p->flow);
	sk = lookup(skb, &st, p->flow.family, BPF_F_CURRENT_NETNS);
	if (!sk)
		return NULL;
	if (sk->state == TCP_LISTEN_STATE) {
		bpf_sk_release(sk);
		return NULL;
	}
	return sk;
}

static __always_inline bool is_reopened(const struct bpf_sock *sk, const struct packet *p)
{
	return sk->state == TCP_TIME_WAIT_STATE && (p->tcp_flags & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN;
}

static __always_inline bool has_own_socket(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock *sk;
	bool own;

	if (p->flow.protocol != PROTO_TCP || p->fragmented == 2)
		return false;
	sk = own_socket(skb, p);
	if (!sk)
		return false;
	/* a new connection does not belong to the socket that waits for stray segments of the last one */
	own = !is_reopened(sk, p);
	bpf_sk_release(sk);
	return own;
}

/* A listener on a wildcard address is found through the loopback address. */
static __always_inline struct bpf_sock *proxy_listener(struct __sk_buff *skb, const struct packet *p, u16 port)
{
	struct bpf_sock_tuple st = {};
	struct tuple t = p->flow;
	struct bpf_sock *sk;

	t.destination_port = bpf_htons(port);
	t.destination.word[0] = t.family == 4 ? bpf_htonl(0x7f000001) : 0;
	t.destination.word[1] = 0;
	t.destination.word[2] = 0;
	t.destination.word[3] = t.family == 4 ? 0 : bpf_htonl(1);
	socket_tuple(&st, &t);
	sk = lookup(skb, &st, t.family, BPF_F_CURRENT_NETNS);
	if (!sk)
		return NULL;
	if (sk->state != TCP_LISTEN_STATE) {
		bpf_sk_release(sk);
		return NULL;
	}
	return sk;
}

/* Send the packet to the ingress of the helper device. Port 0: to its own socket only. */
static __always_inline int to_helper(struct __sk_buff *skb, u16 port)
{
	u32 zero = 0;
	struct settings *settings = bpf_map_lookup_elem_((uintptr_t)MAP(SETTINGS), &zero);

	if (!settings || !settings->helper)
		return TC_ACT_SHOT;
	skb->mark = MARK_TO_PROXY | (u32)port << 16;
	return bpf_redirect(settings->helper, BPF_F_INGRESS);
}

/* On the helper device. 0, or the reason why the packet is dropped. Sets the mark that it leaves with.
 *
 * What the stack gets without a socket, it would give to any listener of the host on that port: so only ICMP errors
 * (which reach no listener), and later fragments (whose first one has a socket, or was dropped here) go without.
 *
 * A SYN may meet the TIME_WAIT socket of an earlier connection with its tuple, if the proxy closed that one first. The
 * proxy's listener would refuse it as a duplicate, and the TIME_WAIT socket would look for a listener on the packet's
 * own port, which is one of the host's. nftables' tproxy replaces the old socket by the listener whose port it is told:
 * the packet leaves with its port in the mark (bpf/host.py has the rules, and drops what they do not know). */
static __always_inline int deliver(struct __sk_buff *skb, const struct packet *p, u16 port)
{
	bool reopened = false;
	struct bpf_sock *sk;
	int err;

	skb->mark = MARK_TO_PROXY;
	if (p->outer.protocol != PROTO_TCP || p->fragmented == 2)
		return 0;
	sk = own_socket(skb, p);
	if (p->fragmented) {
		/* reassembly loses an assigned socket; only that of a connection is found again */
		if (!sk)
			return REASON_FRAGMENTS_UNSUPPORTED;
		bpf_sk_release(sk);
		return 0;
	}
	if (sk && is_reopened(sk, p)) {
		bpf_sk_release(sk);
		sk = NULL;
		reopened = true;
	}
	if (!sk && port)
		sk = proxy_listener(skb, p, port);
	if (!sk)
		return REASON_SOCKET_LOOKUP_FAILED;
	if (reopened) {
		bpf_sk_release(sk);
		skb->mark = MARK_TO_PROXY | (u32)port << 16;
		return 0;
	}
	err = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	return err ? REASON_SOCKET_ASSIGN_FAILED : 0;
}

#endif
