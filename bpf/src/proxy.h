/* The way to the proxy, in one place.
 *
 * bpf_sk_assign works on tc ingress only, and packets towards a pod pass the egress hook of its veth. So every packet
 * that is the proxy's is sent to the ingress of a helper device (to_helper), where deliver() finds its socket. The
 * mark carries the proxy port in its upper half on this one hop; a mark survives bpf_redirect within a namespace.
 *
 * A pod's address is never local to the host, so an established TCP socket bound to it is the proxy's; of UDP sockets,
 * which also listeners of the host on any address are, the mark tells.
 */
#ifndef DEFLECTOR_PROXY_H
#define DEFLECTOR_PROXY_H

#include "maps.h"
#include "parse.h"

#define CONNECTED_STATE 1 /* TCP_ESTABLISHED, which a connected UDP socket has too */
#define TCP_TIME_WAIT_STATE 6
#define TCP_LISTEN_STATE 10
#define FOR_NOBODY -1

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

static __always_inline struct bpf_sock *lookup_udp(struct __sk_buff *skb, struct bpf_sock_tuple *st, u8 family)
{
	if (family == 4)
		return bpf_sk_lookup_udp(skb, st, sizeof(st->ipv4), BPF_F_CURRENT_NETNS, 0);
	return bpf_sk_lookup_udp(skb, st, sizeof(st->ipv6), BPF_F_CURRENT_NETNS, 0);
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

/* UDP has no connections, but the proxy's upstream sockets are connected: the one that a datagram answers. Release it.
 * Whatever else has that port is some listener of the host's. The tuple must have its ports (fill_ports). */
static __always_inline struct bpf_sock *upstream_socket(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple st = {};
	struct bpf_sock *sk;
	u32 mark;

	socket_tuple(&st, &p->flow);
	sk = lookup_udp(skb, &st, p->flow.family);
	if (!sk)
		return NULL;
	mark = sk->mark & MARK_MASK;
	if (sk->state != CONNECTED_STATE || (mark != MARK_INGRESS_UPSTREAM && mark != MARK_EGRESS_UPSTREAM)) {
		bpf_sk_release(sk);
		return NULL;
	}
	return sk;
}

/* The mark of that socket; 0: there is none. */
static __always_inline u32 upstream_mark(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock *sk = upstream_socket(skb, p);
	u32 mark;

	if (!sk)
		return 0;
	mark = sk->mark & MARK_MASK;
	bpf_sk_release(sk);
	return mark;
}

static __always_inline bool has_own_socket(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock *sk;
	bool own;

	if (p->flow.protocol == PROTO_UDP)
		return upstream_mark(skb, p);
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
static __always_inline void listener_tuple(struct bpf_sock_tuple *st, const struct packet *p, u16 port)
{
	struct tuple t = p->flow;

	t.destination_port = bpf_htons(port);
	t.destination.word[0] = t.family == 4 ? bpf_htonl(0x7f000001) : 0;
	t.destination.word[1] = 0;
	t.destination.word[2] = 0;
	t.destination.word[3] = t.family == 4 ? 0 : bpf_htonl(1);
	socket_tuple(st, &t);
}

static __always_inline struct bpf_sock *proxy_listener(struct __sk_buff *skb, const struct packet *p, u16 port)
{
	struct bpf_sock_tuple st = {};
	struct bpf_sock *sk;

	listener_tuple(&st, p, port);
	sk = lookup(skb, &st, p->flow.family, BPF_F_CURRENT_NETNS);
	if (!sk)
		return NULL;
	if (sk->state != TCP_LISTEN_STATE) {
		bpf_sk_release(sk);
		return NULL;
	}
	return sk;
}

/* Anybody on the host who wants some UDP port may be given that of a proxy that is not there: the mark tells ours. */
static __always_inline struct bpf_sock *proxy_door(struct __sk_buff *skb, const struct packet *p, u16 port)
{
	struct bpf_sock_tuple st = {};
	struct bpf_sock *sk;
	u32 mark;

	listener_tuple(&st, p, port);
	sk = lookup_udp(skb, &st, p->flow.family);
	if (!sk)
		return NULL;
	mark = sk->mark & MARK_MASK;
	if (sk->state == CONNECTED_STATE || (mark != MARK_EGRESS_ANSWER && mark != MARK_INGRESS_ANSWER)) {
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

/* A datagram for the proxy's door at `port` or, with port 0, for the upstream socket that it answers.
 *
 * Reassembly loses an assigned socket. That of an answer is found again by its tuple. Fragments of a query leave with
 * their port in the mark, and nftables' tproxy finds the door for the whole. */
static __always_inline int deliver_datagram(struct __sk_buff *skb, const struct packet *p, u16 port)
{
	struct bpf_sock *sk;
	int err;

	if (!port && p->fragmented == 2)
		return 0; /* the ports are in the first one, which has a socket, or was dropped here */
	sk = port ? proxy_door(skb, p, port) : upstream_socket(skb, p);
	if (!sk)
		return REASON_SOCKET_LOOKUP_FAILED;
	if (p->fragmented) {
		bpf_sk_release(sk);
		skb->mark = MARK_TO_PROXY | (u32)port << 16;
		return 0;
	}
	err = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	return err ? REASON_SOCKET_ASSIGN_FAILED : 0;
}

/* On the helper device. 0, or the reason why the packet is dropped, or FOR_NOBODY. Sets the mark that it leaves with.
 *
 * What the stack gets without a socket, it would give to any listener of the host on that port: so only ICMP errors
 * (which reach no listener), and later fragments (whose first one has a socket, or was dropped here) go without.
 *
 * A SYN may meet the TIME_WAIT socket of an earlier connection with its tuple, if the proxy closed that one first. The
 * proxy's listener would refuse it as a duplicate, and the TIME_WAIT socket would look for a listener on the packet's
 * own port, which is one of the host's. nftables' tproxy replaces the old socket by the listener whose port it is told:
 * the packet leaves with its port in the mark (bpf/host.py has the rules, and drops what they do not know).
 *
 * ICMP errors are for upstream sockets. The proxy's answers over UDP come from no socket: an error about one (the pod has
 * closed its own) finds nobody, and must not look for another reader on the host. */
static __always_inline int deliver(struct __sk_buff *skb, const struct packet *p, u16 port)
{
	bool reopened = false;
	struct bpf_sock *sk;
	int err;

	skb->mark = MARK_TO_PROXY;
	if (p->related && p->flow.protocol == PROTO_UDP)
		return upstream_mark(skb, p) ? 0 : FOR_NOBODY;
	if (p->outer.protocol == PROTO_UDP)
		return deliver_datagram(skb, p, port);
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
