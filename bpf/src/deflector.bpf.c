/* The kernel data path: two programs on the host side of each pod's veth, one on the helper device.
 *
 *   from_pod  veth ingress    the pod sends: source address, egress policy, answers to the proxy's upstream sockets
 *   to_pod    veth egress     the pod receives: ingress policy
 *   to_proxy  helper ingress  gives a packet to the socket of the proxy
 *
 * docs/architecture.md section B is the contract with the proxy (marks); maps.h is the one with the agent.
 * A packet that passes gets TC_ACT_UNSPEC, so that filters of others after ours still see it.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/pkt_cls.h>

#include "maps.h"
#include "parse.h"
#include "ct.h"
#include "endpoint.h"
#include "events.h"
#include "fragments.h"
#include "policy.h"
#include "proxy.h"
#include "judge.h"

#define FORBIDDEN_FROM_POD(type) ((type) == 134 || (type) == 137) /* router advertisement, redirect */

static __always_inline int act(struct __sk_buff *skb, const struct packet *p, struct story *s, int fate)
{
	conclude(skb, p, s);
	if (fate == FATE_DROP)
		return TC_ACT_SHOT;
	if (fate == FATE_PROXY)
		return to_helper(skb, s->proxy_port);
	return TC_ACT_UNSPEC;
}

static __always_inline int sent_by_pod(struct __sk_buff *skb, struct packet *p, struct story *s)
{
	const struct endpoint *ep = find_endpoint(skb);
	int reason;

	if (!ep)
		return drop(s, REASON_NOT_READY);
	s->group = ep->group;
	reason = parse(skb, p);
	if (reason)
		return drop(s, reason);
	if (p->kind == KIND_LINK)
		return FATE_PASS;
	if (p->kind == KIND_NEIGHBOUR && FORBIDDEN_FROM_POD(p->icmp_type))
		return drop(s, REASON_FORBIDDEN_ICMP6);
	if (p->kind == KIND_NEIGHBOUR && stays_on_link(ep, p))
		return FATE_PASS;
	if (!is_own_source(ep, p))
		return drop(s, REASON_INVALID_SOURCE);
	reason = fill_ports(skb, p);
	if (reason)
		return drop(s, reason);
	/* nodes unpack it, and nobody would check who sent what is inside */
	if (is_tunnel(p) && is_node(identity_of(&p->outer.destination, p->outer.family)))
		return drop(s, REASON_ENCAPSULATION);
	return judge(skb, p, s, ep);
}

static __always_inline int received_by_pod(struct __sk_buff *skb, struct packet *p, struct story *s)
{
	const struct endpoint *ep = find_endpoint(skb);
	u32 mark = skb->mark & MARK_MASK;
	int reason;

	if (!ep)
		return drop(s, REASON_NOT_READY);
	s->group = ep->group;
	reason = parse(skb, p);
	if (reason)
		return drop(s, reason);
	if (p->kind != KIND_IP)
		return FATE_PASS;
	reason = fill_ports(skb, p);
	if (mark == MARK_EGRESS_ANSWER)
		return pass_answer(skb, p, s); /* also fragments: nobody but the proxy can have sent them */
	if (reason)
		return drop(s, reason);
	if (mark == MARK_INGRESS_UPSTREAM)
		return pass_upstream(skb, p, s);
	/* MARK_INGRESS_ANSWER and MARK_EGRESS_UPSTREAM need no case of their own: an answer belongs to the connection
	 * that the pod opened, or to the upstream socket of an egress slot, and judge() finds out which; what an egress
	 * slot sends is judged by its source address, which is that of its pod. */
	return judge(skb, p, s, ep);
}

static __always_inline int program_from_pod(struct __sk_buff *skb)
{
	struct packet p = {};
	struct story s = { .hook = DIRECTION_EGRESS, .observed = OBSERVED_TO_STACK, .reply = REPLY_UNKNOWN };

	return act(skb, &p, &s, sent_by_pod(skb, &p, &s));
}

static __always_inline int program_to_pod(struct __sk_buff *skb)
{
	struct packet p = {};
	struct story s = { .hook = DIRECTION_INGRESS, .observed = OBSERVED_TO_ENDPOINT, .reply = REPLY_UNKNOWN };

	return act(skb, &p, &s, received_by_pod(skb, &p, &s));
}

static __always_inline int program_to_proxy(struct __sk_buff *skb)
{
	struct packet p = {};
	struct story s = { .reply = REPLY_UNKNOWN };
	u32 mark = skb->mark;
	int reason;

	/* not by our redirect: neighbour discovery of the kernel itself on an idle device. Nobody asked for it. */
	if ((mark & MARK_MASK) != MARK_TO_PROXY)
		return TC_ACT_SHOT;
	reason = parse(skb, &p);
	if (!reason && p.kind != KIND_IP)
		reason = REASON_INVALID_PACKET;
	if (!reason)
		reason = deliver(skb, &p, mark >> 16);
	if (reason == FOR_NOBODY)
		return TC_ACT_SHOT;
	if (reason) {
		drop(&s, reason);
		if (p.outer.family)
			s.group = identity_of(&p.outer.destination, p.outer.family);
		conclude(skb, &p, &s);
		return TC_ACT_SHOT;
	}
	/* the redirect judged the packet by a MAC address that is not the helper's */
	bpf_skb_change_type(skb, PACKET_HOST);
	return TC_ACT_UNSPEC;
}
