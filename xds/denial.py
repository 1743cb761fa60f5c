"""How a denial looks from outside: what clients receive, and how an access log entry shows it.

Constants only. flows/ recognises a denial by these (the agent passes them on: flows imports nothing of ours but
policies).
"""

# Cilium's own body and status (facts: policy language 4.4): 15 bytes, text/plain.
STATUS = 403
BODY = "Access denied\r\n"

# Names that the RBAC filter reports besides those of rules (xds.rbac_tree).
DENY = "deny"  # no rule of the slot's rule set matched
RETIRED = "retired"  # the slot's policy is gone
UNDELIVERED = "undelivered"  # the listener has not been given its filter yet
AMBIGUOUS_PATH = "ambiguous-path"  # servers may read the path differently (policies.judging.ambiguity)
AMBIGUOUS_HOST = "ambiguous-host"  # the same of the host, where a rule has a regular expression for it
ALLOW_ALL = "allow"  # the rule set allows everything
DRAINED = "drained"  # the slot's peers are now allowed without HTTP rules

# Leaves of the tree: one rule, or several that are joined in one regular expression; a digest follows.
RULE_PREFIX = "rule:"
JOINED_PREFIX = "rules:"

# response_code_details of a request that the filter refused; the name is one of the above.
DETAILS_PREFIX = "rbac_access_denied_matched_policy["
DETAILS_SUFFIX = "]"

# Dynamic metadata of the same entry, for allowed requests too.
METADATA_NAMESPACE = "envoy.filters.http.rbac"
METADATA_POLICY = "enforced_effective_policy_id"
METADATA_RESULT = "enforced_engine_result"

# Dynamic metadata of requests that header actions found wanting: name -> expected value, name -> value that came.
# Secrets are [redacted]. What was rejected is told where it was removed or replaced.
MISSING_HEADERS = "deflector.headers.missing"
REJECTED_HEADERS = "deflector.headers.rejected"

# response_code_details of CONNECT, and its body: a tunnel could not be judged.
NO_TUNNEL_DETAILS = "upgrade_failed"
NO_TUNNEL_BODY = "Tunnels are not supported\r\n"

# Where an entry names its slot: the route, or for requests refused before routing (malformed) this filter state.
SLOT_FILTER_STATE = "deflector.slot"
# The same of a TLS connection that is refused: by what (DENY, RETIRED), and the server that it named, if any.
REFUSED_FILTER_STATE = "deflector.refused"
SERVER_NAME_FILTER_STATE = "deflector.server-name"

# The access loggers' log_name, and the request headers that short and full entries carry. The method is among the
# latter because an entry has a number for the best-known methods only, and none for PROPFIND.
LOG_NAME = "deflector"
LOGGED_HEADERS: tuple[str, ...] = ("traceparent",)
FULLY_LOGGED_HEADERS: tuple[str, ...] = (":method", *LOGGED_HEADERS)
