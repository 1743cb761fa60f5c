"""An authority of a test's own, and certificates that it signs, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def openssl(*words: str, cwd: Path) -> None:
    done = subprocess.run(["openssl", *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


class Authority:
    """`certificate` is what its clients trust."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.certificate, self.key = folder / f"{name}.crt", folder / f"{name}.key"
        words = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
        openssl(*words, "-subj", f"/CN={name}", "-keyout", str(self.key), "-out", str(self.certificate), cwd=folder)

    def sign(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """A certificate for these DNS names, and its key; under one name they replace each other."""
        fresh, key, request = (self.folder / f"{name}.{end}" for end in ("crt.new", "key.new", "csr"))
        words = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}")
        openssl(*words, "-keyout", str(key), "-out", str(request), cwd=self.folder)
        extensions = self.folder / f"{name}.ext"
        extensions.write_text("subjectAltName=" + ",".join(f"DNS:{host}" for host in hosts or (name,)))
        by = ("-CA", str(self.certificate), "-CAkey", str(self.key), "-CAcreateserial", "-days", "2")
        openssl(
            *("x509", "-req", "-in", str(request), *by, "-extfile", str(extensions), "-out", str(fresh)),
            cwd=self.folder,
        )
        for path in (fresh, key):
            path.replace(path.with_suffix(""))
        return fresh.with_suffix(""), key.with_suffix("")
