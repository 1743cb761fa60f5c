/* From bytes to a packet: addresses, ports and flags of IPv4 and IPv6, behind options, extension headers and
 * fragments, and of the packet that an ICMP error is about.
 *
 * Every read is a checked copy (bpf_skb_load_bytes), every loop has a bound. What cannot be read is dropped by the
 * caller: parse() returns the reason.
 */
#ifndef DEFLECTOR_PARSE_H
#define DEFLECTOR_PARSE_H

#include "packet.h"

static __always_inline bool names_a_route(u8 option)
{
	return option == OPTION_LOOSE_ROUTE || option == OPTION_STRICT_ROUTE;
}

/* Whether the options may name another destination than the header does. Any byte of theirs can be read as the type of
 * an option: walking from one to the next is more than the verifier can follow, and nobody needs the others. */
static __always_inline bool is_source_routed(struct __sk_buff *skb, int header)
{
	u8 part[4];
	int at;

#pragma unroll
	for (at = sizeof(struct ipv4_bytes); at < IPV4_HEADER_MAX; at += 4) {
		if (at >= header)
			return false;
		if (bpf_skb_load_bytes(skb, ETHERNET_BYTES + at, part, sizeof(part)) < 0 || names_a_route(part[0]) ||
		    names_a_route(part[1]) || names_a_route(part[2]) || names_a_route(part[3]))
			return true;
	}
	return false;
}

/* Walk the extension headers. Returns the offset of the transport header, or a negative reason.
 * `fragment_at` is set to the offset of a fragment header, if there is one; a later fragment ends the walk. */
static __always_inline int skip_extensions(struct __sk_buff *skb, int offset, u8 *next, int *fragment_at)
{
	int i;

#pragma unroll
	for (i = 0; i < EXTENSION_HEADERS; i++) {
		u8 head[8];
		u8 type = *next;

		if (type != PROTO_HOPOPTS && type != PROTO_ROUTING && type != PROTO_FRAGMENT && type != PROTO_AUTH &&
		    type != PROTO_DSTOPTS)
			return offset;
		if (bpf_skb_load_bytes(skb, offset, head, sizeof(head)) < 0)
			return -REASON_INVALID_PACKET;
		*next = head[0];
		if (type == PROTO_FRAGMENT) {
			*fragment_at = offset;
			offset += 8;
			if ((((u16)head[2] << 8 | head[3]) & 0xfff8) != 0)
				return offset; /* what follows is payload */
		} else if (type == PROTO_AUTH) {
			offset += ((int)head[1] + 2) << 2;
		} else if (type == PROTO_ROUTING && head[3]) {
			return -REASON_INVALID_EXTENSION; /* segments are left: the destination is another one */
		} else {
			offset += ((int)head[1] + 1) << 3;
		}
	}
	return -REASON_INVALID_EXTENSION;
}

/* The packet inside an ICMP error went the other way: its source is the destination of the flow as we see it here, and
 * where the error goes. One that goes elsewhere is no error, but a way out for whatever it carries.
 * Unreadable: not related, and judged as any ICMP packet. */
static __always_inline void parse_quoted(struct __sk_buff *skb, struct packet *p, int offset)
{
	struct icmp_bytes echo;
	struct tuple t = {};
	__be16 ports[2];

	if (p->outer.family == 4) {
		struct ipv4_bytes ip;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) < 0 || ip.version_ihl >> 4 != 4)
			return;
		t.family = 4;
		t.protocol = ip.protocol;
		t.source.word[0] = ip.source;
		t.destination.word[0] = ip.destination;
		if (ip.fragment & bpf_htons(IP_OFFSET_MASK))
			return;
		offset += (ip.version_ihl & 15) << 2;
	} else {
		struct ipv6_bytes ip;
		int fragment_at = 0;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) < 0 || ip.version_class >> 4 != 6)
			return;
		t.family = 6;
		t.protocol = ip.next;
		copy_address(&t.source, ip.source);
		copy_address(&t.destination, ip.destination);
		offset = skip_extensions(skb, offset + (int)sizeof(ip), &t.protocol, &fragment_at);
		if (offset < 0)
			return;
	}
	if (has_ports(t.protocol)) {
		if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)) < 0)
			return;
		t.source_port = ports[0];
		t.destination_port = ports[1];
	} else if (is_icmp(t.protocol)) {
		if (bpf_skb_load_bytes(skb, offset, &echo, sizeof(echo)) < 0)
			return;
		echo_ports(&t, echo.type, echo.id);
	}
	if (!same_address(&t.source, &p->outer.destination))
		return;
	p->flow.source = t.destination;
	p->flow.destination = t.source;
	p->flow.source_port = t.destination_port;
	p->flow.destination_port = t.source_port;
	p->flow.protocol = t.protocol;
	p->related = 1;
}

/* The transport header, where the packet has one. It ends before `end`, where the packet does: what follows in the frame
 * is not the receiver's to see, and must not pass for a header that a later fragment brings. */
static __always_inline int parse_transport(struct __sk_buff *skb, struct packet *p, int offset, int end)
{
	struct tuple *t = &p->outer;

	if (t->protocol == PROTO_TCP) {
		struct tcp_bytes tcp;

		if (offset + (int)sizeof(tcp) > end || bpf_skb_load_bytes(skb, offset, &tcp, sizeof(tcp)) < 0 ||
		    tcp.offset >> 4 < 5)
			return REASON_INVALID_PACKET;
		t->source_port = tcp.source;
		t->destination_port = tcp.destination;
		p->tcp_flags = tcp.flags;
		/* opens and ends at once: nobody means it, and stacks differ in what they make of it */
		if (tcp.flags & FLAG_SYN && tcp.flags & (FLAG_FIN | FLAG_RST))
			return REASON_INVALID_PACKET;
	} else if (has_ports(t->protocol)) {
		__be16 ports[4]; /* UDP's and SCTP's headers have at least eight bytes */

		if (offset + (int)sizeof(ports) > end || bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)) < 0)
			return REASON_INVALID_PACKET;
		t->source_port = ports[0];
		t->destination_port = ports[1];
	} else if (is_icmp(t->protocol)) {
		struct icmp_bytes icmp;

		if (offset + (int)sizeof(icmp) > end || bpf_skb_load_bytes(skb, offset, &icmp, sizeof(icmp)) < 0)
			return REASON_INVALID_PACKET;
		p->icmp_type = icmp.type;
		p->icmp_code = icmp.code;
		echo_ports(t, icmp.type, icmp.id);
	}
	p->flow = *t;
	if (is_icmp(t->protocol) && is_icmp_error(t->family, p->icmp_type))
		parse_quoted(skb, p, offset + (int)sizeof(struct icmp_bytes));
	return 0;
}

/* Discovery on the link: RFC 4861 asks for hop limit 255, MLD (RFC 2710, 3810) for a link-local source and 1. */
static __always_inline bool is_neighbour(const struct packet *p)
{
	const struct tuple *t = &p->outer;

	if (t->family != 6 || t->protocol != PROTO_ICMP6 || p->fragmented)
		return false;
	if (p->icmp_type >= 133 && p->icmp_type <= 137)
		return p->hops == 255;
	if ((p->icmp_type >= 130 && p->icmp_type <= 132) || p->icmp_type == 143)
		return p->hops == 1 && (is_link_local(&t->source) || is_unspecified(&t->source));
	return false;
}

static __always_inline int parse_ipv4(struct __sk_buff *skb, struct packet *p)
{
	struct ipv4_bytes ip;
	u16 fragment;
	int header;

	if (bpf_skb_load_bytes(skb, ETHERNET_BYTES, &ip, sizeof(ip)) < 0 || ip.version_ihl >> 4 != 4)
		return REASON_INVALID_PACKET;
	header = (ip.version_ihl & 15) << 2;
	if (header < (int)sizeof(ip))
		return REASON_INVALID_PACKET;
	/* a total of 0 is a segment of more than 64 KiB that was never on a wire (BIG TCP) */
	if (ip.total && (bpf_ntohs(ip.total) < header || bpf_ntohs(ip.total) + ETHERNET_BYTES > skb->len))
		return REASON_INVALID_PACKET;
	if (is_source_routed(skb, header))
		return REASON_INVALID_PACKET;
	p->outer.family = 4;
	p->outer.protocol = ip.protocol;
	p->outer.source.word[0] = ip.source;
	p->outer.destination.word[0] = ip.destination;
	p->hops = ip.ttl;
	fragment = bpf_ntohs(ip.fragment);
	if (fragment & (IP_MORE_FRAGMENTS | IP_OFFSET_MASK)) {
		p->fragment = ip.id;
		p->fragmented = fragment & IP_OFFSET_MASK ? 2 : 1;
		/* RFC 1858: a fragment that begins inside the TCP header exists to rewrite its flags */
		if (ip.protocol == PROTO_TCP && (fragment & IP_OFFSET_MASK) == 1)
			return REASON_INVALID_PACKET;
	}
	if (p->fragmented == 2) {
		p->flow = p->outer;
		return 0;
	}
	return parse_transport(skb, p, ETHERNET_BYTES + header,
			       ip.total ? ETHERNET_BYTES + bpf_ntohs(ip.total) : (int)skb->len);
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6_bytes ip;
	int fragment_at = 0;
	int offset, end;

	if (bpf_skb_load_bytes(skb, ETHERNET_BYTES, &ip, sizeof(ip)) < 0 || ip.version_class >> 4 != 6)
		return REASON_INVALID_PACKET;
	/* a payload of 0 is a jumbogram that was never on a wire (BIG TCP), or nothing at all */
	end = ip.payload ? ETHERNET_BYTES + (int)sizeof(ip) + bpf_ntohs(ip.payload) : (int)skb->len;
	if (end > (int)skb->len)
		return REASON_INVALID_PACKET;
	p->outer.family = 6;
	p->outer.protocol = ip.next;
	copy_address(&p->outer.source, ip.source);
	copy_address(&p->outer.destination, ip.destination);
	p->hops = ip.hops;
	offset = skip_extensions(skb, ETHERNET_BYTES + (int)sizeof(ip), &p->outer.protocol, &fragment_at);
	if (offset < 0)
		return -offset;
	if (fragment_at) {
		u8 head[8];

		if (bpf_skb_load_bytes(skb, fragment_at, head, sizeof(head)) < 0)
			return REASON_INVALID_PACKET;
		/* an atomic fragment (RFC 6946: offset 0, no more to come) is whole */
		if (((u16)head[2] << 8 | head[3]) & 0xfff9) {
			p->fragmented = ((u16)head[2] << 8 | head[3]) & 0xfff8 ? 2 : 1;
			__builtin_memcpy(&p->fragment, head + 4, 4);
			/* RFC 1858 for IPv6: it begins inside the TCP header */
			if (p->outer.protocol == PROTO_TCP && (((u16)head[2] << 8 | head[3]) & 0xfff8) == 8)
				return REASON_INVALID_PACKET;
		}
	}
	if (p->fragmented == 2) {
		p->flow = p->outer;
		return 0;
	}
	return parse_transport(skb, p, offset, end);
}

/* 0, or the reason why the packet is dropped. */
static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	int reason;

	if (skb->vlan_present)
		return REASON_UNSUPPORTED_L3;
	switch (skb->protocol) {
	case __constant_htons(ETH_P_ARP):
		p->kind = KIND_LINK;
		return 0;
	case __constant_htons(ETH_P_IP):
		return parse_ipv4(skb, p);
	case __constant_htons(ETH_P_IPV6):
		reason = parse_ipv6(skb, p);
		if (!reason && is_neighbour(p))
			p->kind = KIND_NEIGHBOUR;
		return reason;
	}
	return REASON_UNSUPPORTED_L3;
}

#endif
