"""kubectl, as far as conformance in a cluster asks it, for a cluster that is not one: objects are at an API server (the
fake, or a real one behind the real kubectl), pods are network namespaces of this machine.

    python -m tests.fakes.kubectl STATE.json WORDS…

STATE: `server`, its address; `real`, a kubectl (and its words) for everything that needs no kubelet, or nothing;
`pods`, of each pod by name: the network namespace (`netns`), words to run in it instead of others (`instead`), words
to add (`also`); `hubble`, the Unix socket that any forwarded port leads to.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

Raw = dict[str, Any]
NEEDS_KUBELET = ("exec", "port-forward", "logs")
CLUSTERWIDE = ("namespaces", "nodes")
GROUPS = {
    "namespaces": "api/v1",
    "nodes": "api/v1",
    "pods": "api/v1",
    "services": "api/v1",
    "ciliumnetworkpolicies": "apis/cilium.io/v2",
    "networkpolicies": "apis/networking.k8s.io/v1",
}
PLURALS = {"CiliumNetworkPolicy": "ciliumnetworkpolicies", "NetworkPolicy": "networkpolicies"}


class Words:
    """A command line: flags, flags with values, and what is left."""

    WITH_VALUE = ("-n", "-l", "-o", "-c", "-f", "--context", "--kubeconfig", "--field-selector")

    def __init__(self, argv: list[str]) -> None:
        self.flags: dict[str, str] = {}
        self.rest: list[str] = []
        self.command: list[str] = []
        words = iter(argv)
        for word in words:
            if word == "--":
                self.command = list(words)
            elif word in self.WITH_VALUE:
                self.flags[word] = next(words)
            elif word.startswith("-"):
                name, _, value = word.partition("=")
                self.flags[name] = value
            else:
                self.rest.append(word)


class Kubectl:
    def __init__(self, state: Raw, words: Words) -> None:
        self._state, self._words = state, words

    def run(self) -> int:
        verb, *rest = self._words.rest
        match verb:
            case "version":
                self._print({"clientVersion": {}, "serverVersion": self._ask("GET", "/version")})
            case "get":
                self._get(*rest)
            case "apply":
                for item in json.load(sys.stdin)["items"]:
                    query = "?fieldManager=kubectl&force=true"
                    self._ask("PATCH", self._path_of(item) + query, item, "application/apply-patch+yaml")
            case "delete" if self._words.flags.get("-f"):
                for item in json.load(sys.stdin)["items"]:
                    self._ask("DELETE", self._path_of(item), missing_ok=True)
            case "delete":
                for name in rest[1:]:
                    self._ask("DELETE", self._path(rest[0], name), missing_ok=True)
            case "annotate":
                self._annotate(rest[0], rest[1:])
            case "wait":
                return self._wait()
            case "exec":
                return self._exec(rest[0])
            case "logs":
                print("the last words of the agent")
            case "port-forward":
                self._forward(rest[1])
            case _:
                complain(f"unknown command {verb!r}")
        return 0

    def _get(self, kinds: str, *names: str) -> None:
        if names:
            self._print(self._ask("GET", self._path(kinds + "s", names[0])))
            return
        found = [item for kind in kinds.split(",") for item in self._list(kind.partition(".")[0])]
        self._print({"kind": "List", "items": found})

    def _list(self, plural: str) -> list[Raw]:
        selectors = (("labelSelector", "-l"), ("fieldSelector", "--field-selector"))
        query = {name: self._words.flags[flag] for name, flag in selectors if flag in self._words.flags}
        document = self._ask("GET", self._path(plural) + "?" + urllib.parse.urlencode(query))
        kind = document["kind"].removesuffix("List")
        return [{"kind": kind, "apiVersion": document["apiVersion"], **item} for item in document["items"]]

    def _annotate(self, plural: str, rest: list[str]) -> None:
        names = [word for word in rest if "=" not in word]
        values = dict(word.split("=", 1) for word in rest if "=" in word)
        for name in names:
            change = {"metadata": {"annotations": values}}
            self._ask("PATCH", self._path(plural, name), change, "application/merge-patch+json")

    def _wait(self) -> int:
        deadline = time.monotonic() + float(self._words.flags["--timeout"].removesuffix("s"))
        while time.monotonic() < deadline:
            pods = self._list("pods")
            if pods and all(_is_ready(pod) for pod in pods):
                return 0
            time.sleep(0.1)
        return complain("timed out waiting for the condition")

    def _exec(self, pod: str) -> int:
        known = self._state["pods"].get(pod)
        if known is None:
            complain(f'pods "{pod}" not found')
        argv = known.get("instead", {}).get(self._words.command[0], self._words.command[:1]) + self._words.command[1:]
        within = ["nsenter", f"--net={known['netns']}"] if known.get("netns") else []
        done = subprocess.run([*within, *argv, *known.get("also", [])], check=False)
        if done.returncode:
            print(f"command terminated with exit code {done.returncode}", file=sys.stderr)
        return done.returncode

    def _forward(self, target: str) -> NoReturn:
        listener = socket.create_server(("127.0.0.1", 0))
        print(f"Forwarding from 127.0.0.1:{listener.getsockname()[1]} -> {target}", flush=True)
        while True:
            here, _ = listener.accept()
            there = socket.socket(socket.AF_UNIX)
            there.connect(self._state["hubble"])
            for pair in ((here, there), (there, here)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()

    def _path_of(self, item: Raw) -> str:
        plural = PLURALS.get(item["kind"], item["kind"].lower() + "s")
        return self._path(plural, item["metadata"]["name"], item["metadata"].get("namespace", ""))

    def _path(self, plural: str, name: str = "", namespace: str = "") -> str:
        namespace = namespace or self._words.flags.get("-n", "")
        parts = [GROUPS[plural]]
        parts += ["namespaces", namespace] if namespace and plural not in CLUSTERWIDE else []
        return "/" + "/".join([*parts, plural, *([name] if name else [])])

    def _ask(self, method: str, path: str, body: Raw | None = None, kind: str = "", *, missing_ok: bool = False) -> Raw:
        content = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": kind} if kind else {}
        request = urllib.request.Request(self._state["server"] + path, content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                found: Raw = json.load(response)
                return found
        except urllib.error.HTTPError as error:
            if error.code == 404 and missing_ok:
                return {}
            said = json.load(error)
            complain(f"Error from server ({said['reason']}): {said['message']}")
        except OSError as error:
            complain(f"The connection to the server {self._state['server']} was refused: {error}")

    @staticmethod
    def _print(document: Raw) -> None:
        print(json.dumps(document))


def _is_ready(pod: Raw) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _pump(source: socket.socket, target: socket.socket) -> None:
    while piece := source.recv(1 << 16):
        target.sendall(piece)
    target.close()


def complain(words: str) -> NoReturn:
    print(words, file=sys.stderr)
    sys.exit(1)


def main() -> None:
    state = json.loads(Path(sys.argv[1]).read_text())
    words = Words(sys.argv[2:])
    if state.get("real") and words.rest and words.rest[0] not in NEEDS_KUBELET:
        os.execvp(state["real"][0], [*state["real"], *sys.argv[2:]])
    sys.exit(Kubectl(state, words).run())


if __name__ == "__main__":
    main()
