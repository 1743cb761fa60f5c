{{/* RBAC rules of a process, of files/permissions.yaml: (dict "root" $ "process" NAME "namespaced" BOOL). */}}
{{- define "deflector.rules" -}}
{{- $table := .root.Files.Get "files/permissions.yaml" | fromYaml }}
{{- $namespaced := .namespaced | default false }}
{{- $root := .root }}
{{- range get $table .process }}
{{- $flag := ternary (get $root.Values.operator (.when | default "")) true (hasKey . "when") }}
{{- if kindIs "map" $flag }}{{ $flag = $flag.enabled }}{{ end }}
{{- if and (eq (.namespaced | default false) $namespaced) $flag }}
# {{ .why }}
- apiGroups: {{ toJson .groups }}
  resources: {{ toJson .resources }}
  {{- with .names }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: {{ toJson .verbs }}
{{- end }}
{{- end }}
{{- end }}
