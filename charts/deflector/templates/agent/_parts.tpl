{{- define "deflector.agentMounts" -}}
- name: run
  mountPath: {{ .Values.node.runDir }}
- name: bpffs
  mountPath: {{ .Values.node.bpffs }}
  mountPropagation: HostToContainer
- name: sysctls
  mountPath: /host/proc/sys/net
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "deflector.agentArguments" -}}
- --node-name=$(NODE_NAME)
- --run-dir={{ .Values.node.runDir }}
- --bpffs={{ .Values.node.bpffs }}
- --cluster-name={{ .Values.clusterName }}
- --proxy-ports={{ .Values.node.proxyPorts }}
- --policy-enforcement={{ .Values.policy.enforcement }}
- --allow-localhost={{ .Values.policy.allowLocalhost }}
{{- if .Values.policy.nodeSelectorLabels }}
- --enable-node-selector-labels
{{- end }}
{{- with .Values.policy.identityLabels }}
- {{ printf "--identity-labels=%s" (join " " .) | quote }}
{{- end }}
- --kafka-roles={{ .Values.policy.kafkaRoles }}
{{- if not .Values.policy.kafkaHideTopics }}
- --kafka-show-topics
{{- end }}
- --hubble-address=:{{ .Values.hubble.port }}
- --hubble-event-buffer-capacity={{ .Values.hubble.bufferCapacity }}
{{- if .Values.hubble.tls.enabled }}
- --hubble-tls-cert-file=/etc/deflector/hubble/tls.crt
- --hubble-tls-key-file=/etc/deflector/hubble/tls.key
- --hubble-tls-client-ca-files=/etc/deflector/hubble/ca.crt
{{- else }}
- --hubble-disable-tls
{{- end }}
{{- with .Values.hubble.redact }}
{{- if .enabled }}
- --hubble-redact-enabled
{{- end }}
- --hubble-redact-http-urlquery={{ .urlQuery }}
- --hubble-redact-http-userinfo={{ .userInfo }}
{{- with .allowHeaders }}
- --hubble-redact-http-headers-allow={{ join "," . }}
{{- end }}
{{- with .denyHeaders }}
- --hubble-redact-http-headers-deny={{ join "," . }}
{{- end }}
{{- end }}
{{- with .Values.hubble.export }}
{{- if .otlpEndpoint }}
- --hubble-export-otlp-endpoint={{ .otlpEndpoint }}
{{- if .otlpInsecure }}
- --hubble-export-otlp-insecure
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.metrics.enabled }}
- --hubble-metrics-server=:{{ .Values.metrics.port }}
{{- range .Values.metrics.flows }}
- {{ printf "--hubble-metrics=%s" . | quote }}
{{- end }}
{{- if .Values.metrics.openMetrics }}
- --enable-hubble-open-metrics
{{- end }}
{{- end }}
{{- range .Values.agent.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}
