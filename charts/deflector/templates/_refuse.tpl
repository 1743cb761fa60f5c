{{/*
Two engines on one node would fight for its packets and its policies' status. `lookup` sees the cluster in an install and
an upgrade; it is empty in `helm template`, and the operator looks again.
*/}}
{{- define "deflector.refuseCilium" -}}
{{- range (lookup "apps/v1" "DaemonSet" "" "").items }}
{{- $labels := .metadata.labels | default dict }}
{{- if or (eq (get $labels "k8s-app") "cilium") (and (eq .metadata.name "cilium") (eq .metadata.namespace "kube-system")) }}
{{- fail (printf "this cluster runs Cilium (DaemonSet %s/%s), which enforces these policies itself: Deflector is for clusters with another CNI. Remove Cilium first, or use its own Envoy" .metadata.namespace .metadata.name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the schema cannot say of values that belong together. */}}
{{- define "deflector.refuseValues" -}}
{{- $ports := splitList "-" .Values.node.proxyPorts }}
{{- if ge (int (first $ports)) (int (last $ports)) }}
{{- fail (printf "node.proxyPorts: %s is not FIRST-LAST, e.g. 14000-14999" .Values.node.proxyPorts) }}
{{- end }}
{{- range $name, $port := dict "hubble.port" .Values.hubble.port "metrics.port" .Values.metrics.port }}
{{- if and (ge (int $port) (int (first $ports))) (le (int $port) (int (last $ports))) }}
{{- fail (printf "%s: %v is one of node.proxyPorts" $name $port) }}
{{- end }}
{{- end }}
{{- if and (eq .Values.hubble.tls.method "certManager") .Values.hubble.tls.enabled (not .Values.hubble.tls.issuer.name) }}
{{- fail "hubble.tls.method certManager needs hubble.tls.issuer: {group, kind, name} of an Issuer or ClusterIssuer" }}
{{- end }}
{{- end }}
