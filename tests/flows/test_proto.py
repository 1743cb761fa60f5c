"""The messages against the table of Hubble's wire format, transcribed by hand from its description."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flow import flow_pb2
from observer import observer_pb2
from peer import peer_pb2
from relay import relay_pb2

EVENTS_REQUEST = "number=1:uint64 follow=2:bool since=7:?Timestamp until=8:?Timestamp first=9:bool"

# message -> "name=number:type"; * marks repeated, ? a message of google.protobuf
MESSAGES = {
    "flow.Flow": """time=1:?Timestamp verdict=2:Verdict drop_reason=3:uint32 ethernet=4:Ethernet IP=5:IP l4=6:Layer4
        source=8:Endpoint destination=9:Endpoint Type=10:FlowType node_name=11:string *source_names=13:string
        *destination_names=14:string l7=15:Layer7 reply=16:bool event_type=19:CiliumEventType source_service=20:Service
        destination_service=21:Service traffic_direction=22:TrafficDirection policy_match_type=23:uint32
        trace_observation_point=24:TraceObservationPoint drop_reason_desc=25:DropReason is_reply=26:?BoolValue
        debug_capture_point=27:DebugCapturePoint interface=28:NetworkInterface proxy_port=29:uint32
        trace_context=30:TraceContext sock_xlate_point=31:SocketTranslationPoint socket_cookie=32:uint64
        cgroup_id=33:uint64 uuid=34:string auth_type=35:AuthType trace_reason=36:TraceReason *node_labels=37:string
        file=38:FileInfo tunnel=39:Tunnel ip_trace_id=40:IPTraceID emitter=41:Emitter *egress_allowed_by=21001:Policy
        *ingress_allowed_by=21002:Policy *egress_denied_by=21004:Policy *ingress_denied_by=21005:Policy
        *policy_log=21006:string aggregate=21007:Aggregate Summary=100000:string extensions=150000:?Any""",
    "flow.Emitter": "name=1:string version=2:string",
    "flow.Endpoint": """ID=1:uint32 identity=2:uint32 namespace=3:string *labels=4:string pod_name=5:string
        *workloads=6:Workload cluster_name=7:string""",
    "flow.Workload": "name=1:string kind=2:string",
    "flow.Service": "name=1:string namespace=2:string",
    "flow.Ethernet": "source=1:string destination=2:string",
    "flow.IP": "source=1:string destination=2:string ipVersion=3:IPVersion encrypted=4:bool source_xlated=5:string",
    "flow.Layer4": "TCP=1:TCP UDP=2:UDP ICMPv4=3:ICMPv4 ICMPv6=4:ICMPv6 SCTP=5:SCTP VRRP=6:VRRP IGMP=7:IGMP",
    "flow.TCP": "source_port=1:uint32 destination_port=2:uint32 flags=3:TCPFlags",
    "flow.TCPFlags": """FIN=1:bool SYN=2:bool RST=3:bool PSH=4:bool ACK=5:bool URG=6:bool ECE=7:bool CWR=8:bool
        NS=9:bool""",
    "flow.UDP": "source_port=1:uint32 destination_port=2:uint32",
    "flow.SCTP": "source_port=1:uint32 destination_port=2:uint32",
    "flow.ICMPv4": "type=1:uint32 code=2:uint32",
    "flow.ICMPv6": "type=1:uint32 code=2:uint32",
    "flow.VRRP": "type=1:uint32 vrid=2:uint32 priority=3:uint32",
    "flow.IGMP": "type=1:uint32 group_address=2:string",
    "flow.Tunnel": "protocol=1:Tunnel.Protocol IP=2:IP l4=3:Layer4 vni=4:uint32",
    "flow.Layer7": "type=1:L7FlowType latency_ns=2:uint64 dns=100:DNS http=101:HTTP kafka=102:Kafka",
    "flow.HTTP": "code=1:uint32 method=2:string url=3:string protocol=4:string *headers=5:HTTPHeader",
    "flow.HTTPHeader": "key=1:string value=2:string",
    "flow.DNS": """query=1:string *ips=2:string ttl=3:uint32 *cnames=4:string observation_source=5:string rcode=6:uint32
        *qtypes=7:string *rrtypes=8:string""",
    "flow.Kafka": "error_code=1:int32 api_version=2:int32 api_key=3:string correlation_id=4:int32 topic=5:string",
    "flow.Policy": "name=1:string namespace=2:string *labels=3:string revision=4:uint64 kind=5:string",
    "flow.CiliumEventType": "type=1:int32 sub_type=2:int32",
    "flow.EventTypeFilter": "type=1:int32 match_sub_type=2:bool sub_type=3:int32",
    "flow.TraceContext": "parent=1:TraceParent",
    "flow.TraceParent": "trace_id=1:string",
    "flow.IPTraceID": "trace_id=1:uint64 ip_option_type=2:uint32",
    "flow.FileInfo": "name=1:string line=2:uint32",
    "flow.NetworkInterface": "index=1:uint32 name=2:string",
    "flow.Aggregate": "ingress_flow_count=1:uint32 egress_flow_count=2:uint32 unknown_direction_flow_count=3:uint32",
    "flow.LostEvent": """source=1:LostEventSource num_events_lost=2:uint64 cpu=3:?Int32Value first=4:?Timestamp
        last=5:?Timestamp""",
    "flow.AgentEvent": """type=1:AgentEventType unknown=100:AgentEventUnknown agent_start=101:TimeNotification
        policy_update=102:PolicyUpdateNotification endpoint_regenerate=103:EndpointRegenNotification
        endpoint_update=104:EndpointUpdateNotification ipcache_update=105:IPCacheNotification
        service_upsert=106:ServiceUpsertNotification service_delete=107:ServiceDeleteNotification""",
    "flow.AgentEventUnknown": "type=1:string notification=2:string",
    "flow.TimeNotification": "time=1:?Timestamp",
    "flow.PolicyUpdateNotification": "*labels=1:string revision=2:uint64 rule_count=3:int64",
    "flow.EndpointRegenNotification": "id=1:uint64 *labels=2:string error=3:string",
    "flow.EndpointUpdateNotification": """id=1:uint64 *labels=2:string error=3:string pod_name=4:string
        namespace=5:string""",
    "flow.IPCacheNotification": """cidr=1:string identity=2:uint32 old_identity=3:?UInt32Value host_ip=4:string
        old_host_ip=5:string encrypt_key=6:uint32 namespace=7:string pod_name=8:string""",
    "flow.ServiceUpsertNotification": """id=1:uint32 frontend_address=2:ServiceUpsertNotificationAddr
        *backend_addresses=3:ServiceUpsertNotificationAddr type=4:string traffic_policy=5:string name=6:string
        namespace=7:string ext_traffic_policy=8:string int_traffic_policy=9:string""",
    "flow.ServiceUpsertNotificationAddr": "ip=1:string port=2:uint32",
    "flow.ServiceDeleteNotification": "id=1:uint32",
    "flow.DebugEvent": """type=1:DebugEventType source=2:Endpoint hash=3:?UInt32Value arg1=4:?UInt32Value
        arg2=5:?UInt32Value arg3=6:?UInt32Value message=7:string cpu=8:?Int32Value""",
    "flow.FlowFilter": """*uuid=29:string *source_ip=1:string *source_ip_xlated=34:string *source_pod=2:string
        *source_fqdn=7:string *source_label=10:string *source_service=16:string *source_workload=26:Workload
        *source_cluster_name=37:string *destination_ip=3:string *destination_pod=4:string *destination_fqdn=8:string
        *destination_label=11:string *destination_service=17:string *destination_workload=27:Workload
        *destination_cluster_name=38:string *verdict=5:Verdict *event_type=6:EventTypeFilter *http_status_code=9:string
        *protocol=12:string *source_port=13:string *destination_port=14:string *reply=15:bool *dns_query=18:string
        *source_identity=19:uint32 *destination_identity=20:uint32 *http_method=21:string *http_path=22:string
        *tcp_flags=23:TCPFlags *node_name=24:string *ip_version=25:IPVersion *trace_id=28:string
        *traffic_direction=30:TrafficDirection *http_url=31:string *http_header=32:HTTPHeader
        *drop_reason_desc=33:DropReason *interface=35:NetworkInterface *node_labels=36:string *ip_trace_id=39:uint64
        *encrypted=40:bool experimental=999:FlowFilter.Experimental""",
    "flow.FlowFilter.Experimental": "*cel_expression=1:string",
    "observer.GetFlowsRequest": """number=1:uint64 follow=3:bool *blacklist=5:flow.FlowFilter
        *whitelist=6:flow.FlowFilter since=7:?Timestamp until=8:?Timestamp first=9:bool field_mask=10:?FieldMask
        experimental=999:GetFlowsRequest.Experimental extensions=150000:?Any""",
    "observer.GetFlowsRequest.Experimental": "field_mask=1:?FieldMask",
    "observer.GetFlowsResponse": """flow=1:flow.Flow node_status=2:relay.NodeStatusEvent lost_events=3:flow.LostEvent
        node_name=1000:string time=1001:?Timestamp""",
    "observer.GetAgentEventsRequest": EVENTS_REQUEST,
    "observer.GetDebugEventsRequest": EVENTS_REQUEST,
    "observer.GetAgentEventsResponse": "agent_event=1:flow.AgentEvent node_name=1000:string time=1001:?Timestamp",
    "observer.GetDebugEventsResponse": "debug_event=1:flow.DebugEvent node_name=1000:string time=1001:?Timestamp",
    "observer.GetNodesRequest": "",
    "observer.GetNamespacesRequest": "",
    "observer.ServerStatusRequest": "",
    "observer.GetNodesResponse": "*nodes=1:Node",
    "observer.Node": """name=1:string version=2:string address=3:string state=4:relay.NodeState tls=5:TLS
        uptime_ns=6:uint64 num_flows=7:uint64 max_flows=8:uint64 seen_flows=9:uint64""",
    "observer.TLS": "enabled=1:bool server_name=2:string",
    "observer.GetNamespacesResponse": "*namespaces=1:Namespace",
    "observer.Namespace": "cluster=1:string namespace=2:string",
    "observer.ServerStatusResponse": """num_flows=1:uint64 max_flows=2:uint64 seen_flows=3:uint64 uptime_ns=4:uint64
        num_connected_nodes=5:?UInt32Value num_unavailable_nodes=6:?UInt32Value *unavailable_nodes=7:string
        version=8:string flows_rate=9:double""",
    "observer.ExportEvent": """flow=1:flow.Flow node_status=2:relay.NodeStatusEvent lost_events=3:flow.LostEvent
        agent_event=4:flow.AgentEvent debug_event=5:flow.DebugEvent node_name=1000:string time=1001:?Timestamp""",
    "relay.NodeStatusEvent": "state_change=1:NodeState *node_names=2:string message=3:string",
    "peer.NotifyRequest": "",
    "peer.ChangeNotification": "name=1:string address=2:string type=3:ChangeNotificationType tls=4:TLS",
    "peer.TLS": "server_name=1:string",
}

ENUMS = {
    "flow.FlowType": "UNKNOWN_TYPE 0, L3_L4 1, L7 2, SOCK 3",
    "flow.L7FlowType": "UNKNOWN_L7_TYPE 0, REQUEST 1, RESPONSE 2, SAMPLE 3",
    "flow.Verdict": """VERDICT_UNKNOWN 0, FORWARDED 1, DROPPED 2, ERROR 3, AUDIT 4, REDIRECTED 5, TRACED 6,
        TRANSLATED 7""",
    "flow.TrafficDirection": "TRAFFIC_DIRECTION_UNKNOWN 0, INGRESS 1, EGRESS 2",
    "flow.IPVersion": "IP_NOT_USED 0, IPv4 1, IPv6 2",
    "flow.AuthType": "DISABLED 0, SPIRE 1, TEST_ALWAYS_FAIL 2",
    "flow.TraceObservationPoint": """UNKNOWN_POINT 0, TO_PROXY 1, TO_HOST 2, TO_STACK 3, TO_OVERLAY 4,
        FROM_ENDPOINT 5, FROM_PROXY 6, FROM_HOST 7, FROM_STACK 8, FROM_OVERLAY 9, FROM_NETWORK 10, TO_NETWORK 11,
        FROM_CRYPTO 12, TO_CRYPTO 13, TO_ENDPOINT 101""",
    "flow.TraceReason": """TRACE_REASON_UNKNOWN 0, NEW 1, ESTABLISHED 2, REPLY 3, RELATED 4, REOPENED 5, SRV6_ENCAP 6,
        SRV6_DECAP 7, ENCRYPT_OVERLAY 8""",
    "flow.DebugCapturePoint": """DBG_CAPTURE_POINT_UNKNOWN 0, DBG_CAPTURE_DELIVERY 4, DBG_CAPTURE_FROM_LB 5,
        DBG_CAPTURE_AFTER_V46 6, DBG_CAPTURE_AFTER_V64 7, DBG_CAPTURE_PROXY_PRE 8, DBG_CAPTURE_PROXY_POST 9,
        DBG_CAPTURE_SNAT_PRE 10, DBG_CAPTURE_SNAT_POST 11""",
    "flow.SocketTranslationPoint": """SOCK_XLATE_POINT_UNKNOWN 0, SOCK_XLATE_POINT_PRE_DIRECTION_FWD 1,
        SOCK_XLATE_POINT_POST_DIRECTION_FWD 2, SOCK_XLATE_POINT_PRE_DIRECTION_REV 3,
        SOCK_XLATE_POINT_POST_DIRECTION_REV 4""",
    "flow.LostEventSource": """UNKNOWN_LOST_EVENT_SOURCE 0, PERF_EVENT_RING_BUFFER 1, OBSERVER_EVENTS_QUEUE 2,
        HUBBLE_RING_BUFFER 3""",
    "flow.EventType": "UNKNOWN 0, RecordLost 2, EventSample 9",
    "flow.AgentEventType": """AGENT_EVENT_UNKNOWN 0, AGENT_STARTED 2, POLICY_UPDATED 3, POLICY_DELETED 4,
        ENDPOINT_REGENERATE_SUCCESS 5, ENDPOINT_REGENERATE_FAILURE 6, ENDPOINT_CREATED 7, ENDPOINT_DELETED 8,
        IPCACHE_UPSERTED 9, IPCACHE_DELETED 10, SERVICE_UPSERTED 11, SERVICE_DELETED 12""",
    "flow.Tunnel.Protocol": "UNKNOWN 0, VXLAN 1, GENEVE 2",
    "relay.NodeState": "UNKNOWN_NODE_STATE 0, NODE_CONNECTED 1, NODE_UNAVAILABLE 2, NODE_GONE 3, NODE_ERROR 4",
    "peer.ChangeNotificationType": "UNKNOWN 0, PEER_ADDED 1, PEER_DELETED 2, PEER_UPDATED 3",
}

DROP_REASONS = {
    0: "DROP_REASON_UNKNOWN",
    132: "INVALID_SOURCE_IP",
    133: "POLICY_DENIED",
    134: "INVALID_PACKET_DROPPED",
    136: "CT_MISSING_TCP_ACK_FLAG",
    137: "CT_UNKNOWN_L4_PROTOCOL",
    139: "UNSUPPORTED_L3_PROTOCOL",
    140: "MISSED_TAIL_CALL",
    142: "UNKNOWN_L4_PROTOCOL",
    151: "STALE_OR_UNROUTABLE_IP",
    158: "SERVICE_BACKEND_NOT_FOUND",
    166: "UNSUPPORTED_L2_PROTOCOL",
    180: "PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL",
    181: "POLICY_DENY",
    189: "AUTH_REQUIRED",
    195: "UNENCRYPTED_TRAFFIC",
    196: "TTL_EXCEEDED",
    203: "DROP_EP_NOT_READY",
    205: "DROP_PUNT_PROXY",
}

MODULES = (flow_pb2, observer_pb2, relay_pb2, peer_pb2)
TYPES = {1: "double", 3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 13: "uint32"}


def all_of(kind: str) -> dict[str, Any]:
    """Every message or enum of the four files, also nested ones, by full name."""
    found: dict[str, Any] = {}

    def add(messages: Any) -> None:
        for message in messages:
            if kind == "message":
                found[message.full_name] = message
            else:
                found.update({enum.full_name: enum for enum in message.enum_types})
            add(message.nested_types)

    for module in MODULES:
        if kind == "enum":
            found.update({enum.full_name: enum for enum in module.DESCRIPTOR.enum_types_by_name.values()})
        add(module.DESCRIPTOR.message_types_by_name.values())
    return found


def written(field: Any, package: str) -> str:
    """A field in the notation of the table."""
    kind = field.message_type or field.enum_type
    name = TYPES.get(field.type) if kind is None else kind.full_name.removeprefix(f"{package}.")
    name = str(name).replace("google.protobuf.", "?")
    return f"{'*' if field.is_repeated else ''}{field.name}={field.number}:{name}"


def test_there_are_no_other_messages() -> None:
    assert set(all_of("message")) == set(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_fields_have_the_numbers_and_types_of_the_table(name: str) -> None:
    package = name.partition(".")[0]
    assert {written(field, package) for field in all_of("message")[name].fields} == set(MESSAGES[name].split())


@pytest.mark.parametrize("name", ENUMS)
def test_enums_have_the_values_of_the_table(name: str) -> None:
    wanted = {key: int(number) for key, number in re.findall(r"(\w+) (\d+)", ENUMS[name])}
    assert {value.name: value.number for value in all_of("enum")[name].values} == wanted


def test_drop_reasons() -> None:
    numbers = {value.number: value.name for value in all_of("enum")["flow.DropReason"].values}
    assert set(numbers) == {0, *range(130, 159), *range(160, 206)}
    assert DROP_REASONS.items() <= numbers.items()


def test_one_of_groups() -> None:
    messages = all_of("message")
    groups = {name: {g.name for g in m.oneofs} for name, m in messages.items() if m.oneofs}
    assert groups == {
        "flow.Layer4": {"protocol"},
        "flow.Layer7": {"record"},
        "flow.AgentEvent": {"notification"},
        "observer.GetFlowsResponse": {"response_types"},
        "observer.ExportEvent": {"response_types"},
    }


def test_json_follows_the_order_of_declaration() -> None:
    order = [field.name for field in flow_pb2.Flow.DESCRIPTOR.fields]
    assert order[:4] == ["time", "uuid", "emitter", "verdict"]
    assert order[-8:] == [
        "Summary",
        "extensions",
        "egress_allowed_by",
        "ingress_allowed_by",
        "egress_denied_by",
        "ingress_denied_by",
        "policy_log",
        "aggregate",
    ]


def test_services() -> None:
    observer = observer_pb2.DESCRIPTOR.services_by_name["Observer"]
    streams = {method.name: method.server_streaming for method in observer.methods}
    assert observer.full_name == "observer.Observer"
    assert streams == {
        "GetFlows": True,
        "GetAgentEvents": True,
        "GetDebugEvents": True,
        "GetNodes": False,
        "GetNamespaces": False,
        "ServerStatus": False,
    }
    peer = peer_pb2.DESCRIPTOR.services_by_name["Peer"]
    assert (peer.full_name, [m.name for m in peer.methods]) == ("peer.Peer", ["Notify"])
