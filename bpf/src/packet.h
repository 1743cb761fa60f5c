/* What a packet is to us once it is read: addresses, ports, flags; and what can be said of it without looking again. */
#ifndef DEFLECTOR_PACKET_H
#define DEFLECTOR_PACKET_H

#include "maps.h"

#define ETHERNET_BYTES 14
#define EXTENSION_HEADERS 8 /* RFC 8200 4.1 knows seven, each at most once but for the options header */

#define IPV4_HEADER_MAX 60
#define OPTION_LOOSE_ROUTE 131
#define OPTION_STRICT_ROUTE 137

#define IP_MORE_FRAGMENTS 0x2000
#define IP_OFFSET_MASK 0x1fff

#define PROTO_HOPOPTS 0
#define PROTO_ICMP 1
#define PROTO_IPIP 4
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_IPV6 41
#define PROTO_ROUTING 43
#define PROTO_FRAGMENT 44
#define PROTO_GRE 47
#define PROTO_AUTH 51
#define PROTO_ICMP6 58
#define PROTO_DSTOPTS 60
#define PROTO_SCTP 132

#define FLAG_FIN 0x01
#define FLAG_SYN 0x02
#define FLAG_RST 0x04
#define FLAG_ACK 0x10

/* packet.kind */
#define KIND_IP 0
#define KIND_LINK 1     /* ARP: passes */
#define KIND_NEIGHBOUR 2 /* IPv6 neighbour and group discovery on the link: passes */

struct tuple {
	struct address source;
	struct address destination;
	__be16 source_port; /* ICMP echo: the identifier on the side that asks, 0 on the other */
	__be16 destination_port;
	u8 protocol;
	u8 family;
	u16 pad;
};

struct packet {
	struct tuple outer;
	struct tuple flow; /* what connection tracking looks up; of an ICMP error: the flow it is about */
	u32 fragment;      /* identification, where `fragmented` */
	u8 kind;
	u8 tcp_flags;
	u8 icmp_type;
	u8 icmp_code;
	u8 related;    /* an ICMP error about `flow` */
	u8 fragmented; /* 1: first fragment, 2: a later one */
	u8 hops;
	u8 pad;
};

struct ipv4_bytes {
	u8 version_ihl;
	u8 tos;
	__be16 total;
	__be16 id;
	__be16 fragment;
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u32 source;
	u32 destination;
};

struct ipv6_bytes {
	u8 version_class;
	u8 flow[3];
	__be16 payload;
	u8 next;
	u8 hops;
	u32 source[4];
	u32 destination[4];
};

struct tcp_bytes {
	__be16 source;
	__be16 destination;
	u32 sequence;
	u32 acknowledged;
	u8 offset;
	u8 flags;
};

struct icmp_bytes {
	u8 type;
	u8 code;
	u16 checksum;
	__be16 id;
	__be16 sequence;
};

static __always_inline void copy_address(struct address *to, const u32 *from)
{
	to->word[0] = from[0];
	to->word[1] = from[1];
	to->word[2] = from[2];
	to->word[3] = from[3];
}

static __always_inline bool same_address(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

static __always_inline bool is_link_local(const struct address *a)
{
	return (a->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline bool is_multicast6(const struct address *a)
{
	return (a->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

static __always_inline bool is_link_multicast(const struct address *a)
{
	return (a->word[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0xff020000);
}

static __always_inline bool is_unspecified(const struct address *a)
{
	return !(a->word[0] | a->word[1] | a->word[2] | a->word[3]);
}

/* ICMP echo request and reply carry the identifier where TCP has the port of the side that opens. */
static __always_inline void echo_ports(struct tuple *t, u8 type, __be16 id)
{
	u8 request = t->family == 4 ? 8 : 128;
	u8 answer = t->family == 4 ? 0 : 129;

	if (type == request)
		t->source_port = id;
	else if (type == answer)
		t->destination_port = id;
}

static __always_inline bool is_icmp(u8 protocol)
{
	return protocol == PROTO_ICMP || protocol == PROTO_ICMP6;
}

static __always_inline bool has_ports(u8 protocol)
{
	return protocol == PROTO_TCP || protocol == PROTO_UDP || protocol == PROTO_SCTP;
}

static __always_inline bool is_icmp_error(u8 family, u8 type)
{
	if (family == 4)
		return type == 3 || type == 11 || type == 12;
	return type >= 1 && type <= 4;
}

/* Packets that carry packets: to a node that unpacks them, what is inside comes from nowhere. UDP by the ports that
 * VXLAN (IANA's and Linux's own) and Geneve have. */
static __always_inline bool is_tunnel(const struct packet *p)
{
	switch (p->outer.protocol) {
	case PROTO_IPIP:
	case PROTO_IPV6:
	case PROTO_GRE:
		return true;
	case PROTO_UDP:
		return p->outer.destination_port == bpf_htons(4789) || p->outer.destination_port == bpf_htons(8472) ||
		       p->outer.destination_port == bpf_htons(6081);
	}
	return false;
}

#endif
