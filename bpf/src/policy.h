/* Who may: identity, protocol and port -> verdict.
 *
 * The compiler has resolved every precedence; what is left is to take the most specific entry. An entry that names the
 * protocol goes before one for every protocol, and within each an entry of the identity before the wildcard's.
 * bpf/changes.py orders its steps by the same rule (see `_order` there), so keep the two in step.
 */
#ifndef DEFLECTOR_POLICY_H
#define DEFLECTOR_POLICY_H

#include "maps.h"
#include "parse.h"

struct decision {
	u8 verdict;
	u8 reason;
	u8 match_type;
	u8 pad;
	u16 proxy_port;
	u16 pad2;
};

static __always_inline u8 match_type(const struct policy_value *value, bool wildcard)
{
	switch (value->scope) {
	case SCOPE_ANY:
		return wildcard ? MATCH_ALL : MATCH_L3_ONLY;
	case SCOPE_PROTOCOL:
		return wildcard ? MATCH_PROTO_ONLY : MATCH_L3_PROTO;
	}
	return wildcard ? MATCH_L4_ONLY : MATCH_L3_L4;
}

static __always_inline void decide(struct decision *d, u32 group, u32 identity, u8 direction, u8 protocol, __be16 port)
{
	struct policy_key key = {
		.prefixlen = POLICY_BITS_PORT,
		.group = group,
		.identity = identity,
		.direction = direction,
		.protocol = protocol,
		.port = port,
	};
	struct policy_value *value = bpf_map_lookup_elem_((uintptr_t)MAP(POLICY), &key);
	bool wildcard = false;

	if (!value || value->scope == SCOPE_ANY) {
		struct policy_value *any;

		key.identity = IDENTITY_ANY;
		any = bpf_map_lookup_elem_((uintptr_t)MAP(POLICY), &key);
		if (any && (!value || any->scope != SCOPE_ANY)) {
			value = any;
			wildcard = true;
		}
	}
	d->verdict = VERDICT_DENY;
	d->reason = REASON_POLICY_DENIED;
	d->match_type = MATCH_NONE;
	d->proxy_port = 0;
	if (!value)
		return;
	d->match_type = match_type(value, wildcard);
	if (value->verdict == VERDICT_ALLOW) {
		d->verdict = VERDICT_ALLOW;
	} else if (value->verdict == VERDICT_REDIRECT && value->proxy_port) {
		d->verdict = VERDICT_REDIRECT;
		d->proxy_port = value->proxy_port;
	} else if (value->reason) {
		d->reason = value->reason;
	}
}

/* Egress to a service is judged by its backends. `port` is that of the service, then of the backend.
 * Returns 0, or the reason why the packet is dropped. */
static __always_inline int translate_service(const struct address *address, const struct tuple *t, u32 *identity,
					     __be16 *port)
{
	struct service_key key = {
		.address = *address,
		.port = *port,
		.protocol = t->protocol,
		.family = t->family,
	};
	struct service_value *service = bpf_map_lookup_elem_((uintptr_t)MAP(SERVICES), &key);

	if (!service)
		return 0;
	if (!service->identity)
		return REASON_SERVICE_BACKEND;
	*identity = service->identity;
	*port = service->target_port;
	return 0;
}

#endif
