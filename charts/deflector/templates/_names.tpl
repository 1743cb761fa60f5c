{{/* Labels of everything; call with (dict "root" $ "component" NAME). */}}
{{- define "deflector.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: deflector
{{ include "deflector.podLabels" . }}
{{- end }}

{{/* Labels of pods: nothing in them changes with a version, or a new chart would replace every Envoy. */}}
{{- define "deflector.podLabels" -}}
app.kubernetes.io/name: deflector
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Head of an object: (dict "root" $ "component" NAME "name" NAME); cluster-wide objects have no namespace. */}}
{{- define "deflector.metadata" -}}
name: {{ .name }}
{{- if not .clusterwide }}
namespace: {{ .root.Release.Namespace }}
{{- end }}
labels:
  {{- include "deflector.labels" (dict "root" .root "component" .component) | nindent 2 }}
{{- end }}

{{/* A reference to an image: (dict "image" VALUES "tag" TAG). */}}
{{- define "deflector.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .tag }}
{{- end -}}
{{- end }}

{{/* The image of everything but Envoy. */}}
{{- define "deflector.ownImage" -}}
{{ include "deflector.image" (dict "image" .Values.image "tag" (.Values.image.tag | default .Chart.AppVersion)) }}
{{- end }}

{{/* That of the DNS and Kafka proxies, which may be held back. */}}
{{- define "deflector.proxiesImage" -}}
{{- if .Values.proxies.tag -}}
{{ .Values.image.repository }}:{{ .Values.proxies.tag }}
{{- else -}}
{{ include "deflector.ownImage" . }}
{{- end -}}
{{- end }}

{{/* What the three DaemonSets have in common: they run on the same nodes, in the nodes' network. */}}
{{- define "deflector.onEachNode" -}}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
priorityClassName: {{ .Values.node.priorityClassName }}
nodeSelector:
  {{- toYaml .Values.node.nodeSelector | nindent 2 }}
tolerations:
  {{- toYaml .Values.node.tolerations | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* What operator and relay have in common: nobody in particular, nothing of the node's, nothing to write to. */}}
{{- define "deflector.unprivilegedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}
{{- define "deflector.unprivilegedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What needs the node's network and files: (dict "capabilities" LIST "seccomp" TYPE). The user is root, which owns the run
     directory, with these capabilities and no others. spc_t is what SELinux asks of whoever uses folders of the host. */}}
{{- define "deflector.nodeContainer" -}}
runAsUser: 0
runAsGroup: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: [{{ join ", " .capabilities }}]
seccompProfile:
  type: {{ .seccomp }}
seLinuxOptions:
  level: s0
  type: spc_t
{{- end }}

{{- define "deflector.nodeName" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end }}

{{/* DNS name of a Service of ours: (dict "root" $ "name" NAME). */}}
{{- define "deflector.serviceName" -}}
{{ .name }}.{{ .root.Release.Namespace }}.svc
{{- end }}

{{/* The names that certificates say. Dots would make levels that a wildcard does not span. */}}
{{- define "deflector.tlsDomain" -}}
{{ .Values.clusterName | replace "." "-" }}.hubble-grpc.cilium.io
{{- end }}
